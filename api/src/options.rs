//! What the operator may set. Every bound has a default and its unit in its name.

use std::path::PathBuf;
use std::time::Duration;

use cloudserve_protocol::limits::PlatformLimits;

/// Settings of the control plane. The lifetime of a session is that of the authenticator's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiOptions {
    /// Where builds have their private directories. Belongs to this process alone: what an
    /// earlier one left there is removed.
    pub work_dir: PathBuf,
    /// The native esbuild program.
    pub esbuild: PathBuf,
    /// Where callers reach the gateway, for `url` in function views: `http://127.0.0.1:8081`.
    pub gateway_url: Option<String>,
    /// Where this process reaches the gateway to call a function for somebody who looks at the
    /// answer here; none are called if unset. `http`, since it is a way within the installation.
    pub invoke_url: Option<String>,
    /// Whether the session cookie is sent over TLS only.
    pub secure_cookie: bool,
    /// Take the address of a caller from `x-forwarded-for`, of which it is the last entry. Only behind
    /// a proxy that sets it.
    pub trust_forwarded: bool,
    /// Bounds of the installation.
    pub limits: PlatformLimits,

    /// Deploys that are built at the same time.
    pub deploys_in_parallel: usize,
    /// Deploys of one account that may wait or be in work at the same time.
    pub deploys_queued_per_user: u32,
    /// Address space of one run of esbuild.
    pub bundle_memory_mb: u32,
    /// How long a deployer holds a version without a sign of life.
    pub lease_ms: u32,
    /// How often the queue is looked at when nothing announced work.
    pub queue_poll_ms: u32,
    /// How often a deploy is tried before it is given up.
    pub deploy_attempts: u32,
    /// Wait before the second attempt; doubled for each further one.
    pub deploy_retry_ms: u32,
    /// How long a dependency tree is kept that no version names. Longer than any build takes, and than
    /// servers of an earlier release, of whose builds it is not known what they use, run beside this one.
    /// 0: for good.
    pub tree_kept_s: u32,
    /// How often it is looked which trees these are.
    pub tree_look_s: u32,
    /// At shutdown, time for builds that have begun to end.
    pub drain_ms: u32,
    /// Longest time `?wait=true` waits for a deploy to end.
    pub deploy_wait_ms: u32,

    /// API keys one account may have.
    pub api_keys_per_user: usize,
    /// Passwords hashed at the same time; each takes 19 MB and a core, of which one is left.
    pub password_hashes_in_parallel: usize,
    /// Logins that may wait to have a password hashed, half of them from one address, of IPv6 a /64
    /// network; more are turned away.
    pub password_hashes_waiting: usize,
    /// The same of registrations, which anybody can send: so that there is room for logins.
    pub registrations_waiting: usize,
    /// Accounts that may begin per hour at one address, of IPv6 a /64 network. 0: no bound.
    pub registrations_per_hour: u32,
    /// Failed logins of one account that cost no waiting time.
    pub login_failures_per_account: u32,
    /// Failed logins from one address, of IPv6 a /64 network, that cost no waiting time.
    pub login_failures_per_address: u32,
    /// Waiting time after the first failure that costs any; doubled for each further one.
    pub login_backoff_ms: u32,
    /// Longest waiting time between two logins.
    pub login_backoff_max_ms: u32,

    /// Time to receive a request body.
    pub body_read_ms: u32,
    /// Calls made for the dashboard at the same time, a quarter of them for one account; more are
    /// turned away.
    pub invocations_in_parallel: usize,
    /// How much of an answer is shown.
    pub invoke_answer_bytes: usize,
    /// Calls that are read to draw one series; of more, the newest.
    pub series_rows: u32,
    /// Deploy bodies received or held in memory at the same time; of one account a quarter of that.
    pub uploads_in_parallel: usize,
    /// How long a deploy waits until its body may be received; then it is turned away.
    pub upload_wait_ms: u32,
    /// Lock file of a deploy. Kept with the version, so read with it.
    pub package_lock_bytes: u64,

    /// Calls per second of one credential, as the gateway bounds them; for what accounts are told.
    /// 0: no bound.
    pub rate_per_second: u32,
    /// Logs one account may follow at the same time.
    pub log_followers_per_user: usize,
    /// How long a log is followed before the stream ends. Clients go on where they were.
    pub log_follow_ms: u32,
}

impl Default for ApiOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            work_dir: PathBuf::from("./data/builds"),
            esbuild: PathBuf::from("esbuild"),
            gateway_url: None,
            invoke_url: None,
            secure_cookie: false,
            trust_forwarded: false,
            limits: PlatformLimits::default(),
            deploys_in_parallel: 2,
            deploys_queued_per_user: 20,
            bundle_memory_mb: 2_048,
            lease_ms: 30_000,
            queue_poll_ms: 2_000,
            deploy_attempts: 5,
            deploy_retry_ms: 1_000,
            tree_kept_s: 7 * 24 * 60 * 60,
            tree_look_s: 24 * 60 * 60,
            drain_ms: 10_000,
            deploy_wait_ms: 240_000,
            api_keys_per_user: 100,
            password_hashes_in_parallel: (cores - 1).clamp(1, 2),
            password_hashes_waiting: 64,
            registrations_waiting: 16,
            registrations_per_hour: 500,
            login_failures_per_account: 5,
            login_failures_per_address: 100,
            login_backoff_ms: 1_000,
            login_backoff_max_ms: 300_000,
            body_read_ms: 60_000,
            invocations_in_parallel: 16,
            invoke_answer_bytes: 1024 * 1024,
            series_rows: 50_000,
            uploads_in_parallel: 8,
            upload_wait_ms: 10_000,
            package_lock_bytes: 4 * 1024 * 1024,
            rate_per_second: 0,
            log_followers_per_user: 20,
            log_follow_ms: 3_600_000,
        }
    }
}

impl ApiOptions {
    pub(crate) fn lease(&self) -> Duration {
        millis(self.lease_ms)
    }

    pub(crate) fn queue_poll(&self) -> Duration {
        millis(self.queue_poll_ms)
    }

    pub(crate) fn drain(&self) -> Duration {
        millis(self.drain_ms)
    }

    pub(crate) fn deploy_wait(&self) -> Duration {
        millis(self.deploy_wait_ms)
    }

    /// How long to leave a deploy alone after this attempt failed.
    pub(crate) fn deploy_retry(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(16);
        millis(self.deploy_retry_ms).saturating_mul(1 << doublings)
    }

    /// `None`: for good.
    pub(crate) fn tree_kept(&self) -> Option<Duration> {
        (self.tree_kept_s > 0).then(|| Duration::from_secs(self.tree_kept_s.into()))
    }

    pub(crate) fn tree_look(&self) -> Duration {
        Duration::from_secs(self.tree_look_s.into())
    }

    pub(crate) fn log_follow(&self) -> Duration {
        millis(self.log_follow_ms)
    }

    pub(crate) fn body_read(&self) -> Duration {
        millis(self.body_read_ms)
    }

    pub(crate) fn upload_wait(&self) -> Duration {
        millis(self.upload_wait_ms)
    }

    /// JSON escapes make source longer, and lock file and environment come with it.
    pub(crate) fn deploy_body_bytes(&self) -> u64 {
        const BESIDE_THE_SOURCE_BYTES: u64 = 4 * 1024 * 1024;
        self.limits.source_bytes.saturating_mul(3) / 2 + BESIDE_THE_SOURCE_BYTES
    }
}

fn millis(value: u32) -> Duration {
    Duration::from_millis(value.into())
}
