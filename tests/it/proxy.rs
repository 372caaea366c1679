//! Functions that pass on what another server has answered.

use std::io::Write;

use axum::Router;
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::net::TcpListener;

use crate::support::{TestServer, deploy};

const TEXT: &str = "what the other server says, more than once, more than once";

const CODE: &str = "
    const ways = {
      asIs: (answer) => answer,
      copied: (answer) => new Response(answer.body, answer),
      cloned: (answer) => answer.clone(),
      headers: ({ body, headers }) => new Response(body, { headers }),
      text: async (answer) => new Response(await answer.text(), answer),
    };
    export default {
      async fetch(request, env) {
        return ways[new URL(request.url).searchParams.get('way')](await fetch(env.UPSTREAM));
      },
    };
";

fn gzip() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(TEXT.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decoded_on_the_way_is_not_said_to_be_encoded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = || async { ([("content-encoding", "gzip"), ("x-from", "there")], gzip()) };
    let router = Router::new().route("/", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let server = TestServer::start_with(&[("CLOUDSERVE_EGRESS_ALLOW", &address)]).await;
    let owner = server.register().await;
    let env = serde_json::json!({ "UPSTREAM": format!("http://{address}/") });
    owner.deploy(&deploy("proxy", "proxy.mjs", CODE).with("env", env)).await;
    for way in ["asIs", "copied", "cloned", "headers", "text"] {
        let answer = owner.call(&format!("proxy?way={way}")).await.expect(200);
        assert_eq!(answer.text(), TEXT, "{way}");
        assert_eq!(answer.header("content-encoding"), "", "{way}");
        assert_eq!(answer.header("x-from"), "there", "{way}");
    }
}
