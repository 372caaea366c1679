//! Packages that turn AWS's events into requests. They expect `body` to be the raw string, so a
//! bundle that carries one gets its events that way unless its owner says otherwise.

use deno_core::ModuleSpecifier;

/// By their names, and the one framework that has its adapter within.
const ADAPTERS: [&str; 12] = [
    "serverless-http",
    "@codegenie/serverless-express",
    "@vendia/serverless-express",
    "aws-serverless-express",
    "aws-serverless-koa",
    "@fastify/aws-lambda",
    "@h4ad/serverless-adapter",
    "@as-integrations/aws-lambda",
    "apollo-server-lambda",
    "@middy/core",
    "lambda-api",
    "hono/dist/adapter/aws-lambda",
];

/// Whether the bundle carries an adapter. The bundler names the file each part comes from.
pub(crate) fn carried_by(bundle_url: &ModuleSpecifier) -> bool {
    let bundle = bundle_url.to_file_path().ok().and_then(|path| std::fs::read_to_string(path).ok());
    bundle.is_some_and(|bundle| names_adapter(&bundle))
}

fn names_adapter(bundle: &str) -> bool {
    let comes_from = |file: &str| {
        ADAPTERS
            .iter()
            .any(|adapter| file.strip_prefix(adapter).is_some_and(|rest| rest.starts_with('/')))
    };
    // Also of packages within packages.
    bundle
        .lines()
        .filter(|line| line.starts_with("// "))
        .filter_map(|line| Some(line.rsplit_once("node_modules/")?.1))
        .any(comes_from)
}

#[cfg(test)]
mod tests {
    use super::names_adapter;

    #[test]
    fn adapters_are_known_by_where_their_files_lie() {
        assert!(names_adapter(
            "var a;\n// node_modules/serverless-http/serverless-http.js\nvar b;"
        ));
        assert!(names_adapter("// node_modules/a/node_modules/@middy/core/index.js\n"));
        assert!(names_adapter("// node_modules/hono/dist/adapter/aws-lambda/handler.js\n"));
        assert!(!names_adapter("// node_modules/serverless-httpd/index.js\n"));
        assert!(!names_adapter("// node_modules/hono/dist/hono.js\n"));
        assert!(!names_adapter("console.log('// node_modules/serverless-http/');"));
    }
}
