//! Packages that turn AWS's events into requests. They expect `body` to be the raw string, so a
//! bundle that carries one gets its events that way unless its owner says otherwise.

/// By their names, and the one framework that has its adapter within, once for `import` and once for
/// `require`.
const ADAPTERS: [&str; 13] = [
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
    "hono/dist/cjs/adapter/aws-lambda",
];

/// Whether one of these files is an adapter's.
pub(super) fn are_among<'a>(mut files: impl Iterator<Item = &'a str>) -> bool {
    let comes_from = |file: &str| {
        ADAPTERS
            .iter()
            .any(|adapter| file.strip_prefix(adapter).is_some_and(|rest| rest.starts_with('/')))
    };
    // Also of packages within packages.
    files.any(|file| file.rsplit_once("node_modules/").is_some_and(|(_, file)| comes_from(file)))
}

#[cfg(test)]
mod tests {
    use super::are_among;

    #[test]
    fn adapters_are_known_by_where_their_files_lie() {
        for (file, expected) in [
            ("node_modules/serverless-http/serverless-http.js", true),
            ("node_modules/a/node_modules/@middy/core/index.js", true),
            ("node_modules/hono/dist/adapter/aws-lambda/handler.js", true),
            ("node_modules/hono/dist/cjs/adapter/aws-lambda/index.js", true),
            ("node_modules/serverless-httpd/index.js", false),
            ("node_modules/hono/dist/hono.js", false),
            ("src/serverless-http/index.js", false),
        ] {
            assert_eq!(are_among(["index.js", file].into_iter()), expected, "{file}");
        }
    }
}
