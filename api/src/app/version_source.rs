//! What one version was made from.

use cloudserve_identity::Principal;
use cloudserve_protocol::ids::FunctionId;
use cloudserve_store::function::Version;

use super::refusal::Refusal;
use super::{App, access};
use crate::build::source::SourceFiles;

impl App {
    /// A version with its source, and which one is served.
    pub(crate) async fn version_source(
        &self,
        principal: &Principal,
        id: FunctionId,
        number: u32,
    ) -> Result<(Version, Option<u32>, SourceFiles), Refusal> {
        access::may_read(principal)?;
        let record = self.function(principal, id).await?;
        let version = self.stores.functions.version(principal.user_id, id, number).await?;
        let version = version.ok_or(Refusal::VersionNotFound)?;
        let artifacts = self.stores.artifacts.as_ref();
        let files = SourceFiles::load(artifacts, id, &version.source, &version.source_hash).await?;
        Ok((version, record.function.active_version, files))
    }
}
