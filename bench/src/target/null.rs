//! A server that answers every request with the same bytes: the floor under all figures, since
//! client and kernel are in each of them.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::error::{BenchError, Doing};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                        content-length: 19\r\n\r\n{\"message\":\"hello\"}";
/// A request without a body fits.
const READ_BYTES: usize = 4096;

/// Serves until it is killed.
pub(crate) async fn serve(address: SocketAddr) -> Result<(), BenchError> {
    let listener = TcpListener::bind(address).await.doing(format!("cannot listen on {address}"))?;
    loop {
        let (stream, _) = listener.accept().await.doing("cannot accept a connection")?;
        tokio::spawn(answer_all(stream));
    }
}

async fn answer_all(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = [0; READ_BYTES];
    // The client sends a request in one piece and no second one before the answer.
    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
        if stream.write_all(ANSWER).await.is_err() {
            break;
        }
    }
}
