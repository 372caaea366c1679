//! Google's functions-framework keeps what `functions.http(...)` registers to itself: its own
//! command line finds it there and serves it. In a bundle, its registry says what it holds.

/// The module that holds it, in any `node_modules`.
const REGISTRY: &str = "@google-cloud/functions-framework/build/src/function_registry.js";

/// Put behind that module. `bootstrap-js/google.js` takes it up.
const TELL: &str = "
if(typeof registrationContainer!==\"undefined\")globalThis.__cloudserve_google={\
registered:registrationContainer,serverOf:(name)=>require(\"./testing\").getTestServer(name)};
";

/// The module at `path`, relative to the project, if it is the registry.
pub(super) fn telling_registry(path: &str, source: &str) -> Option<String> {
    let (_, module) = path.rsplit_once("node_modules/")?;
    (module == REGISTRY).then(|| format!("{source}{TELL}"))
}

#[cfg(test)]
mod tests {
    use super::telling_registry;

    #[test]
    fn only_the_registry_tells() {
        let registry =
            "node_modules/@google-cloud/functions-framework/build/src/function_registry.js";
        for (path, tells) in [
            (registry.to_owned(), true),
            (format!("node_modules/a/{registry}"), true),
            (registry.replace("node_modules/", "src/"), false),
            (registry.replace("function_registry", "testing"), false),
        ] {
            let told = telling_registry(&path, "const a = 1; // end");
            assert_eq!(told.is_some(), tells, "{path}");
            // It ends with a comment.
            assert!(told.is_none_or(|text| text.starts_with("const a = 1; // end\n")));
        }
    }
}
