//! Module loading: the bundle, and what it left in `node_modules`.
//!
//! The bundle is an ES module. Packages it left external are resolved as Node does, and never
//! outside of the bundle's directory and the dependency tree.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use cloudserve_protocol::artifact::Needs;
use deno_core::error::ModuleLoaderError;
use deno_core::{
    FastString, ModuleLoadOptions, ModuleLoadReferrer, ModuleLoadResponse, ModuleLoader,
    ModuleResolveResponse, ModuleSource, ModuleSourceCode, ModuleSpecifier, ModuleType,
    ResolutionKind, SourceCodeCacheInfo, resolve_import,
};
use deno_error::JsErrorBox;
use deno_resolver::npm::{
    ByonmInNpmPackageChecker, ByonmNpmResolver, ByonmNpmResolverCreateOptions,
    DenoInNpmPackageChecker, NpmResolver,
};
use deno_runtime::deno_node::{
    NodeExtInitServices, NodeRequireLoader, default_resolve_require_node_module_paths,
};
use deno_runtime::deno_permissions::PermissionsContainer;
use node_resolver::cache::NodeResolutionSys;
use node_resolver::errors::PackageJsonLoadError;
use node_resolver::{
    DenoIsBuiltInNodeModuleChecker, IsBuiltInNodeModuleChecker, NodeResolutionKind, NodeResolver,
    NodeResolverOptions, PackageJsonResolver, ResolutionMode,
};
use sys_traits::impls::RealSys;

use crate::commonjs::{self, assigned_names, imported_names};
use crate::mapped::map_text;

/// `node:process` as functions import it. Node exports all that the object has, as it is when the module is
/// evaluated; the engine leaves some of it out. The state of its events nobody imports.
const PROCESS: &str = "
    import process from 'node:process';
    export * from 'node:process';
    export default process;
    export const {
        _debugEnd, _debugProcess, _exiting, _fatalException, _getActiveHandles, _getActiveRequests,
        _kill, _rawDebug, binding, config, debugPort, exitCode, features, getgroups,
        hasUncaughtExceptionCaptureCallback, initgroups, moduleLoadList, openStdin, reallyExit, ref,
        release, setSourceMapsEnabled, setUncaughtExceptionCaptureCallback, setgroups,
        sourceMapsEnabled, title, unref, uptime,
    } = process;";
const PROCESS_URL: &str = "node:process/names";
const PROCESS_NAME: &str = "node:process";

type Npm = NpmResolver<RealSys>;
type Resolver = NodeResolver<DenoInNpmPackageChecker, DenoIsBuiltInNodeModuleChecker, Npm, RealSys>;

/// What Deno's Node emulation needs to resolve packages.
pub(crate) type NodeServices = NodeExtInitServices<DenoInNpmPackageChecker, Npm, RealSys>;

/// Where the assigned function lies.
#[derive(Debug, Clone)]
pub(crate) struct Artifacts {
    pub(crate) bundle_url: ModuleSpecifier,
    pub(crate) roots: Vec<PathBuf>,
    pub(crate) code_cache: Option<&'static [u8]>,
}

/// A module that is loaded as a bundle is, and lies in no file.
struct Rehearsed {
    url: ModuleSpecifier,
    source: &'static str,
    code_cache: Option<&'static [u8]>,
}

/// The loader of one worker. Knows no function until `assign`.
pub(crate) struct BundleLoader {
    node: Arc<Resolver>,
    packages: Arc<PackageJsonResolver<RealSys>>,
    artifacts: RefCell<Option<Artifacts>>,
    rehearsed: Cell<Option<Rehearsed>>,
    sources: RefCell<HashMap<String, &'static str>>,
    wanted: RefCell<HashMap<String, BTreeSet<String>>>,
    code_cache: Cell<CodeCache>,
    needs: Cell<Needs>,
}

/// What became of the bundle's code cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CodeCache {
    Absent,
    Given,
    /// V8 refused what it was given, or was given nothing, and made its own.
    Refused,
}

/// The loader and the services that share its caches.
pub(crate) fn new() -> (Rc<BundleLoader>, NodeServices) {
    let packages = Arc::new(PackageJsonResolver::new(RealSys, None));
    let sys = NodeResolutionSys::new(RealSys, None);
    let npm = NpmResolver::Byonm(Arc::new(ByonmNpmResolver::new(ByonmNpmResolverCreateOptions {
        root_node_modules_dir: None,
        search_stop_dir: None,
        sys: sys.clone(),
        pkg_json_resolver: packages.clone(),
    })));
    let node = Arc::new(NodeResolver::new(
        DenoInNpmPackageChecker::Byonm(ByonmInNpmPackageChecker),
        DenoIsBuiltInNodeModuleChecker,
        npm,
        packages.clone(),
        sys,
        NodeResolverOptions::default(),
    ));
    let loader = Rc::new(BundleLoader {
        node: node.clone(),
        packages: packages.clone(),
        artifacts: RefCell::new(None),
        rehearsed: Cell::new(None),
        sources: RefCell::default(),
        wanted: RefCell::default(),
        code_cache: Cell::new(CodeCache::Absent),
        needs: Cell::default(),
    });
    let services = NodeExtInitServices {
        node_require_loader: Rc::new(Required { loader: loader.clone() }),
        node_resolver: node,
        pkg_json_resolver: packages,
        sys: RealSys,
    };
    (loader, services)
}

fn not_found(what: &str) -> ModuleLoaderError {
    JsErrorBox::new("Error", format!("Cannot find module '{what}'"))
}

/// As programs for Deno name modules.
fn has_address(specifier: &str) -> ModuleLoaderError {
    JsErrorBox::new(
        "Error",
        format!(
            "Cannot find module '{specifier}': nothing is loaded from addresses; import a package \
             and add it to dependencies"
        ),
    )
}

/// Its wording is known to the API, which adds what to use instead.
fn native_addon(path: &Path) -> JsErrorBox {
    let inside: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    let start = inside.iter().rposition(|part| *part == "node_modules").map_or(0, |at| at + 1);
    let is_scoped = inside.get(start).is_some_and(|part| part.starts_with('@'));
    let end = (start + 1 + usize::from(is_scoped)).min(inside.len());
    let file = inside.last().copied().unwrap_or_default();
    JsErrorBox::new(
        "Error",
        format!(
            "the package \"{}\" is a native addon, which cannot be loaded: {file}",
            inside[start..end].join("/")
        ),
    )
}

impl BundleLoader {
    /// Tells it where the function lies.
    pub(crate) fn assign(&self, artifacts: Artifacts) {
        *self.artifacts.borrow_mut() = Some(artifacts);
    }

    /// The module of this URL is loaded next, and then known by nobody.
    pub(crate) fn rehearse(
        &self,
        url: &ModuleSpecifier,
        source: &'static str,
        code_cache: Option<&'static [u8]>,
    ) {
        self.rehearsed.set(Some(Rehearsed { url: url.clone(), source, code_cache }));
    }

    /// The module to load.
    pub(crate) fn bundle_url(&self) -> ModuleSpecifier {
        let artifacts = self.artifacts.borrow();
        artifacts.as_ref().expect("asked for after the assignment").bundle_url.clone()
    }

    /// What the bundle that was loaded needs.
    pub(crate) fn needs(&self) -> Needs {
        self.needs.get()
    }

    /// Whether a code cache was given and V8 took it.
    pub(crate) fn code_cache_was_used(&self) -> bool {
        self.code_cache.get() == CodeCache::Given
    }

    fn is_allowed(&self, path: &Path) -> bool {
        let artifacts = self.artifacts.borrow();
        artifacts.as_ref().is_some_and(|a| a.roots.iter().any(|root| path.starts_with(root)))
    }

    fn is_bundle(&self, url: &ModuleSpecifier) -> bool {
        self.artifacts.borrow().as_ref().is_some_and(|a| a.bundle_url == *url)
    }

    fn is_commonjs(&self, url: &ModuleSpecifier) -> Result<bool, PackageJsonLoadError> {
        if self.is_bundle(url) {
            return Ok(false);
        }
        let Ok(path) = url.to_file_path() else { return Ok(false) };
        match path.extension().and_then(|e| e.to_str()) {
            Some("mjs" | "json" | "wasm") => Ok(false),
            Some("cjs") => Ok(true),
            _ => {
                let package = self.packages.get_closest_package_json(&path)?;
                Ok(package.is_none_or(|p| p.typ != "module"))
            }
        }
    }

    fn package(
        &self,
        specifier: &str,
        referrer: &str,
    ) -> Result<ModuleSpecifier, ModuleLoaderError> {
        let referrer = ModuleSpecifier::parse(referrer).map_err(JsErrorBox::from_err)?;
        let resolved = self
            .node
            .resolve(specifier, &referrer, ResolutionMode::Import, NodeResolutionKind::Execution)
            .and_then(node_resolver::NodeResolution::into_url)
            .map_err(|_| not_found(specifier))?;
        // The tree is reached through a link; Node names modules by their real path.
        match resolved.to_file_path().ok().and_then(|path| path.canonicalize().ok()) {
            Some(real) => ModuleSpecifier::from_file_path(real).map_err(|()| not_found(specifier)),
            None => Ok(resolved),
        }
    }

    fn remember_wanted_names(&self, specifier: &str, referrer: &str, resolved: &ModuleSpecifier) {
        if let Some(source) = self.sources.borrow().get(referrer) {
            let names = imported_names(source, specifier);
            self.wanted.borrow_mut().entry(resolved.to_string()).or_default().extend(names);
        }
    }

    fn load_now(&self, url: &ModuleSpecifier) -> Result<ModuleSource, ModuleLoaderError> {
        if let Some(module) = self.rehearsed.take().filter(|module| module.url == *url) {
            let data = module.code_cache.map(Cow::Borrowed);
            let code_cache = SourceCodeCacheInfo { hash: module.source.len() as u64, data };
            let code = ModuleSourceCode::String(FastString::from_static(module.source));
            return Ok(ModuleSource::new(ModuleType::JavaScript, code, url, Some(code_cache)));
        }
        if url.as_str() == PROCESS_URL {
            let code = ModuleSourceCode::String(FastString::from_static(PROCESS));
            return Ok(ModuleSource::new(ModuleType::JavaScript, code, url, None));
        }
        let path = url.to_file_path().map_err(|()| not_found(url.as_str()))?;
        if !self.is_allowed(&path) {
            return Err(not_found(url.as_str()));
        }
        if path.extension().is_some_and(|e| e == "wasm") {
            let bytes = std::fs::read(&path).map_err(JsErrorBox::from_err)?;
            let code = ModuleSourceCode::Bytes(bytes.into_boxed_slice().into());
            return Ok(ModuleSource::new(ModuleType::Wasm, code, url, None));
        }
        let is_commonjs = self.is_commonjs(url).map_err(JsErrorBox::from_err)?;
        // The isolate keeps it as long as the process lives; V8 reads plain ASCII where it lies.
        let (kind, source): (_, &'static str) = if is_commonjs {
            let wanted = self.wanted.borrow();
            let mut names = wanted.get(url.as_str()).cloned().unwrap_or_default();
            if let Ok(source) = std::fs::read_to_string(&path) {
                names.extend(assigned_names(&source));
            }
            (ModuleType::JavaScript, commonjs::facade(&path, &names).leak())
        } else {
            let text = map_text(&path).map_err(JsErrorBox::from_err)?;
            let is_json = path.extension().is_some_and(|e| e == "json");
            (if is_json { ModuleType::Json } else { ModuleType::JavaScript }, text)
        };
        let code_cache = self.is_bundle(url).then(|| {
            self.needs.set(Needs::of(source));
            let data = self.artifacts.borrow_mut().as_mut().and_then(|a| a.code_cache.take());
            if data.is_some() {
                self.code_cache.set(CodeCache::Given);
            }
            SourceCodeCacheInfo { hash: source.len() as u64, data: data.map(Cow::Borrowed) }
        });
        if !is_commonjs {
            self.sources.borrow_mut().insert(url.to_string(), source);
        }
        Ok(ModuleSource::new(
            kind,
            ModuleSourceCode::String(FastString::from_static(source)),
            url,
            code_cache,
        ))
    }
}

impl ModuleLoader for BundleLoader {
    fn resolve(
        &self,
        specifier: &str,
        referrer: &str,
        _kind: ResolutionKind,
    ) -> ModuleResolveResponse {
        // To modules of the engine it is the engine's own.
        if matches!(specifier, "process" | PROCESS_NAME) && !referrer.starts_with("node:") {
            return ModuleSpecifier::parse(PROCESS_URL).map_err(JsErrorBox::from_err);
        }
        if DenoIsBuiltInNodeModuleChecker.is_builtin_node_module(specifier) {
            return ModuleSpecifier::parse(&format!("node:{specifier}"))
                .map_err(JsErrorBox::from_err);
        }
        let is_bare = !specifier.starts_with(['.', '/']) && !specifier.contains(':');
        if (is_bare || specifier.starts_with('#')) && referrer.starts_with("file:") {
            let resolved = self.package(specifier, referrer)?;
            self.remember_wanted_names(specifier, referrer, &resolved);
            return Ok(resolved);
        }
        let resolved = resolve_import(specifier, referrer).map_err(JsErrorBox::from_err)?;
        match resolved.scheme() {
            "node" => Ok(resolved),
            "file" | "data" => {
                self.remember_wanted_names(specifier, referrer, &resolved);
                Ok(resolved)
            }
            "http" | "https" => Err(has_address(specifier)),
            _ => Err(not_found(specifier)),
        }
    }

    /// What a module is called, which is looked up again and compared.
    fn import_meta_resolve(&self, specifier: &str, referrer: &str) -> ModuleResolveResponse {
        let resolved = self.resolve(specifier, referrer, ResolutionKind::DynamicImport)?;
        if resolved.as_str() == PROCESS_URL {
            return ModuleSpecifier::parse(PROCESS_NAME).map_err(JsErrorBox::from_err);
        }
        Ok(resolved)
    }

    fn load(
        &self,
        url: &ModuleSpecifier,
        _referrer: Option<&ModuleLoadReferrer>,
        _options: ModuleLoadOptions,
    ) -> ModuleLoadResponse {
        ModuleLoadResponse::Sync(self.load_now(url))
    }

    fn code_cache_ready(
        &self,
        url: ModuleSpecifier,
        _hash: u64,
        _code_cache: &[u8],
    ) -> Pin<Box<dyn Future<Output = ()>>> {
        if self.is_bundle(&url) {
            // Not this one: see `code_cache`.
            self.code_cache.set(CodeCache::Refused);
        }
        Box::pin(std::future::ready(()))
    }

    /// The sources a map names are where the bundle was built; their names are enough.
    fn source_map_source_exists(&self, _source_url: &str) -> Option<bool> {
        Some(true)
    }

    fn get_source_map(&self, file_name: &str) -> Option<Cow<'_, [u8]>> {
        let artifacts = self.artifacts.borrow();
        let artifacts = artifacts.as_ref().filter(|a| a.bundle_url.as_str() == file_name)?;
        let mut map = artifacts.bundle_url.to_file_path().ok()?.into_os_string();
        map.push(".map");
        std::fs::read(map).ok().map(Cow::Owned)
    }
}

/// `require` under the same rules.
struct Required {
    loader: Rc<BundleLoader>,
}

impl NodeRequireLoader for Required {
    fn ensure_read_permission<'a>(
        &self,
        _permissions: &mut PermissionsContainer,
        path: Cow<'a, Path>,
    ) -> Result<Cow<'a, Path>, JsErrorBox> {
        if path.extension().is_some_and(|extension| extension == "node") && path.is_file() {
            return Err(native_addon(&path));
        }
        let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        if self.loader.is_allowed(&real) {
            Ok(path)
        } else {
            Err(not_found(&path.to_string_lossy()))
        }
    }

    /// Not above the directories that may be read: there is nothing for the function.
    fn resolve_require_node_module_paths(&self, from: &Path) -> Vec<String> {
        let mut paths = default_resolve_require_node_module_paths(from);
        paths.retain(|path| {
            let parent = Path::new(path).parent();
            let is_tree = || self.loader.is_allowed(Path::new(path));
            parent.is_some_and(|parent| self.loader.is_allowed(parent)) || is_tree()
        });
        paths
    }

    fn load_text_file_lossy(&self, path: &Path) -> Result<FastString, JsErrorBox> {
        let bytes = std::fs::read(path).map_err(JsErrorBox::from_err)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned().into())
    }

    fn is_maybe_cjs(&self, url: &url::Url) -> Result<bool, PackageJsonLoadError> {
        self.loader.is_commonjs(url)
    }

    fn is_maybe_cjs_from_require(&self, url: &url::Url) -> Result<bool, PackageJsonLoadError> {
        self.loader.is_commonjs(url)
    }
}
