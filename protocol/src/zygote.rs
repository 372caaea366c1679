//! Between the supervisor and a zygote, the process that workers are forked from: a sequenced
//! packet socket. The zygote's first message says that it is ready. An order is one byte with a
//! worker's descriptors, and behind them that of the control group it is forked into, if it has
//! one; the answer is a [`Forked`].

/// The argument that makes the worker program a zygote.
pub const ZYGOTE_ARGUMENT: &str = "zygote";

/// Descriptors that come with an order: the worker's control socket, standard output, standard
/// error.
pub const WORKER_DESCRIPTORS: usize = 3;

/// What a zygote says: a worker's process id, or minus the system's error number. In its first
/// message, the microseconds it took to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forked(pub i64);

impl Forked {
    /// Bytes of a message.
    pub const BYTES: usize = 8;

    /// No process came to be.
    #[must_use]
    pub fn failed(errno: i32) -> Self {
        Self(-i64::from(errno))
    }

    /// As it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0.to_le_bytes()
    }

    /// As it was sent.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(i64::from_le_bytes(bytes))
    }

    /// The process id, or the system's error number.
    ///
    /// # Errors
    /// With the error number when there is no process.
    pub fn pid(self) -> Result<u32, i32> {
        u32::try_from(self.0).map_err(|_| i32::try_from(-self.0).unwrap_or(i32::MAX))
    }
}
