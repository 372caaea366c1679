//! Why a request is not granted, without a word about HTTP.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use cloudserve_identity::{SealError, TooManyUnknown};
use cloudserve_protocol::artifact::ArtifactError;
use cloudserve_store::StoreError;

use crate::build::source::LoadError;

/// Field, as users spell it, to what is wrong with it.
pub(crate) type FieldErrors = BTreeMap<String, String>;

type Cause = Box<dyn Error + Send + Sync>;

/// Why a request is not granted. Messages are fit for users; causes are for the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the request is not valid")]
    Invalid(FieldErrors),
    #[error("{what} is larger than {max_bytes} bytes")]
    TooLarge { what: &'static str, max_bytes: u64 },
    #[error("email, userName or password is wrong")]
    InvalidCredentials,
    #[error("too many failed logins; wait before the next")]
    TooManyAttempts { retry_after: Duration },
    #[error(transparent)]
    TooManyUnknown(TooManyUnknown),
    #[error("more than {per_hour} accounts per hour begin at this address; wait before the next")]
    TooManyRegistrations { per_hour: u32, retry_after: Duration },
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("this {what} is taken")]
    UserExists { what: &'static str },
    #[error("you have no such function")]
    FunctionNotFound,
    #[error("the function has no such version")]
    VersionNotFound,
    #[error("this version failed or is not built yet; choose one that was built")]
    VersionNotBuilt,
    #[error("you have no such API key")]
    ApiKeyNotFound,
    #[error("an account may follow {max} logs at the same time; end one of them")]
    TooManyFollowers { max: usize },
    #[error("an account may have {max} calls from here under way; wait for one to end")]
    TooManyInvocations { max: usize },
    #[error("an account may have {max} {what}; delete some first")]
    TooMany { what: &'static str, max: usize },
    #[error(
        "an account may have {max} functions (`functions_per_user`); delete some first, or ask the \
         operator"
    )]
    TooManyFunctions { max: u32 },
    #[error(
        "the versions of an account may take {max_bytes} bytes (`stored_bytes_per_user`), they take \
         {held_bytes}, and this one takes {more_bytes}; delete functions first, or ask the operator"
    )]
    TooManyBytes { max_bytes: u64, held_bytes: u64, more_bytes: u64 },
    #[error("an account may have {max} deploys that wait or are in work; wait for one to end")]
    QueueFull { max: u32 },
    #[error("the function is being changed by others; try again")]
    Conflict,
    #[error(
        "the function's environment opens under no master key that is known here; deploy the \
         function with a new `env`, or ask the operator"
    )]
    EnvironmentClosed(#[source] Cause),
    #[error("this installation does not say where its gateway is")]
    NoGateway,
    #[error("the answer of the function ended early")]
    AnswerCutOff,
    #[error("the service is busy; try again soon")]
    Busy,
    #[error("the service cannot do this now; try again soon")]
    Unavailable(#[source] Cause),
    #[error("something went wrong on our side")]
    Internal(#[source] Cause),
}

impl Refusal {
    /// One field is wrong.
    pub(crate) fn field(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(FieldErrors::from([(name.into(), message.into())]))
    }

    pub(crate) fn internal(cause: impl Into<Cause>) -> Self {
        Self::Internal(cause.into())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::BadCursor => Self::field("cursor", "is not one that this list gave"),
            StoreError::Conflict => Self::Conflict,
            StoreError::QueueFull { max } => Self::QueueFull { max },
            StoreError::TooManyFunctions { max } => Self::TooManyFunctions { max },
            StoreError::TooManyBytes { max_bytes, held_bytes, more_bytes } => {
                Self::TooManyBytes { max_bytes, held_bytes, more_bytes }
            }
            StoreError::Full { what, max } => Self::TooMany { what, max },
            StoreError::Unavailable { .. } => Self::Unavailable(error.into()),
            StoreError::Taken { .. } | StoreError::Missing | StoreError::Corrupt { .. } => {
                Self::Internal(error.into())
            }
        }
    }
}

impl From<ArtifactError> for Refusal {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::Backend { .. } => Self::Unavailable(error.into()),
            _ => Self::Internal(error.into()),
        }
    }
}

impl From<LoadError> for Refusal {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Artifact(error) => error.into(),
            _ => Self::Internal(error.into()),
        }
    }
}

impl From<SealError> for Refusal {
    fn from(error: SealError) -> Self {
        match error {
            // The format of before does not name its key: under one that is lost it does not open.
            SealError::UnknownKey { .. } | SealError::DoesNotOpen => {
                Self::EnvironmentClosed(error.into())
            }
            SealError::NoRandomness(_) => Self::Internal(error.into()),
        }
    }
}
