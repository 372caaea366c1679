//! Why storage did not do what it was asked to.

/// A storage failure. Absence of a record is not one: queries return `Option`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A unique value is taken already.
    #[error("{what} is taken")]
    Taken {
        /// Which value: `userName`, `email`, `name`.
        what: &'static str,
    },
    /// Another writer was faster; read again and decide again.
    #[error("the record was changed by another writer")]
    Conflict,
    /// The record to change does not exist.
    #[error("the record does not exist")]
    Missing,
    /// The account has as many versions in the deploy queue as it may.
    #[error("{max} deploys of the account wait or are in work")]
    QueueFull {
        /// How many it may have.
        max: u32,
    },
    /// The account has as many functions as it may.
    #[error("the account has {max} functions, as many as it may")]
    TooManyFunctions {
        /// How many it may have.
        max: u32,
    },
    /// The account's versions would take more of storage than they may.
    #[error(
        "the account's versions take {held_bytes} bytes of {max_bytes}; this one takes {more_bytes}"
    )]
    TooManyBytes {
        /// How much they may take.
        max_bytes: u64,
        /// How much they take.
        held_bytes: u64,
        /// How much this one takes.
        more_bytes: u64,
    },
    /// The account has as many of these as it may.
    #[error("the account has {max} {what}, as many as it may")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many it may have.
        max: usize,
    },
    /// A cursor that no page of this list ever gave.
    #[error("the cursor is not one that this list gave")]
    BadCursor,
    /// A stored record cannot be read.
    #[error("a stored {record} is not readable")]
    Corrupt {
        /// Which kind of record.
        record: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The back end failed or is out of reach.
    #[error("storage is not available")]
    Unavailable {
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// The back end failed.
    pub fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable { source: source.into() }
    }

    /// A record of this kind cannot be read.
    pub fn corrupt(
        record: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt { record, source: source.into() }
    }
}
