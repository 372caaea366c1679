//! Functions that pass on what another server has answered.

use std::io::Write;

use axum::Router;
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::net::TcpListener;

use crate::support::{TestServer, deploy};

const TEXT: &str = "what the other server says, more than once, more than once";

/// The same as Brotli.
const BROTLI: &[u8] = b"\x1b\x39\x00\x70\x14\xa1\xd2\x6b\xac\x0c\x94\x71\xc0\xbe\x56\x53\x3f\xe0\
    \x8b\xa5\xae\x07\x58\xac\xd2\x00\xf5\xa2\xe1\x53\x8c\x79\xbb\x02";

const CODE: &str = "
    import zlib from 'node:zlib';
    const ways = {
      asIs: (answer) => answer,
      copied: (answer) => new Response(answer.body, answer),
      cloned: (answer) => answer.clone(),
      headers: ({ body, headers }) => new Response(body, { headers }),
      text: async (answer) => new Response(await answer.text(), answer),
      buffer: async (answer) => new Response(await answer.arrayBuffer(), answer),
      bytes: async (answer) => new Response(Buffer.from(await answer.bytes()), answer),
      blob: async (answer) => new Response(await answer.blob(), answer),
      gzip: async (answer) => encoded(zlib.gzipSync(await answer.bytes()), 'gzip'),
      br: async (answer) => encoded(zlib.brotliCompressSync(await answer.bytes()), 'br'),
    };
    const encoded = (body, encoding) => new Response(body, { headers: { 'content-encoding': encoding } });
    export default {
      async fetch(request, env) {
        const { pathname, searchParams } = new URL(request.url);
        return ways[searchParams.get('way')](await fetch(env.UPSTREAM + pathname));
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
    let answer = |encoding: &'static str, body: Vec<u8>| {
        let answered = ([("content-encoding", encoding), ("x-from", "there")], body);
        get(move || std::future::ready(answered.clone()))
    };
    let router = Router::new()
        .route("/gzip", answer("gzip", gzip()))
        .route("/br", answer("br", BROTLI.to_vec()));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let server = TestServer::start_with(&[("CLOUDSERVE_EGRESS_ALLOW", &address)]).await;
    let owner = server.register().await;
    let env = serde_json::json!({ "UPSTREAM": format!("http://{address}") });
    owner.deploy(&deploy("proxy", "proxy.mjs", CODE).with("env", env)).await;
    for encoding in ["gzip", "br"] {
        for way in ["asIs", "copied", "cloned", "headers", "text", "buffer", "bytes", "blob"] {
            let path = format!("proxy/{encoding}?way={way}");
            let answer = owner.call(&path).await.expect(200);
            assert_eq!(answer.text(), TEXT, "{path}");
            assert_eq!(answer.header("content-encoding"), "", "{path}");
            assert_eq!(answer.header("x-from"), "there", "{path}");
        }
        // What the function has compressed itself is what the header says.
        let answer = owner.call(&format!("proxy/{encoding}?way={encoding}")).await.expect(200);
        assert_eq!(answer.header("content-encoding"), encoding);
        assert_ne!(answer.text(), TEXT);
    }
}
