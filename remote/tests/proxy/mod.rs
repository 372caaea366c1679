//! What stands before a node and can keep its answers back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Passes everything on to `node`, and what it says only while `holds` is not set.
pub(crate) async fn before(node: SocketAddr, holds: &Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let holds = holds.clone();
    tokio::spawn(async move {
        loop {
            let (mut from_caller, to_caller) = listener.accept().await.unwrap().0.into_split();
            let (from_node, mut to_node) = TcpStream::connect(node).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_caller, &mut to_node).await });
            tokio::spawn(pass_on(from_node, to_caller, holds.clone()));
        }
    });
    address
}

async fn pass_on(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    holds: Arc<AtomicBool>,
) {
    let mut piece = [0; 4_096];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        while holds.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
