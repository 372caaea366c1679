//! Stands between two processes, and does to their connections what networks do.

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// They pass.
    Free,
    /// Those that are open end, new ones are closed at once.
    Cut,
    /// Each request is answered with 500.
    Fails,
    /// Answers end after so many bytes.
    Truncates(u64),
}

/// A port that leads to another.
pub(super) struct Proxy {
    pub(super) address: String,
    passage: watch::Sender<Passage>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn start(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (passage, seen) = watch::channel(Passage::Free);
        let to = to.to_owned();
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((caller, _)) = listener.accept().await else { continue };
                tokio::spawn(pass(caller, to.clone(), seen.clone()));
            }
        });
        Self { address, passage, accepting }
    }

    /// From now on; connections that were opened before end.
    pub(super) fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(caller: TcpStream, to: String, mut seen: watch::Receiver<Passage>) {
    let passage = *seen.borrow_and_update();
    let through = async {
        match passage {
            Passage::Cut => {}
            Passage::Fails => fail(caller).await,
            Passage::Free => tunnel(caller, &to, u64::MAX).await,
            Passage::Truncates(bytes) => tunnel(caller, &to, bytes).await,
        }
    };
    tokio::select! {
        () = through => {}
        _ = seen.changed() => {}
    }
}

async fn tunnel(mut caller: TcpStream, to: &str, answer_bytes: u64) {
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    for stream in [&caller, &server] {
        // What is slower is no fault.
        let _ = stream.set_nodelay(true);
    }
    let (mut asking, mut hearing) = caller.split();
    let (answering, mut asked) = server.split();
    let mut answering = answering.take(answer_bytes);
    let asks = async {
        let _ = copy(&mut asking, &mut asked).await;
        // Who has asked all still listens.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = asks => {}
        _ = copy(&mut answering, &mut hearing) => {}
    }
}

async fn fail(mut caller: TcpStream) {
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < 65_536 {
        match caller.read(&mut piece).await {
            Ok(read @ 1..) => head.extend_from_slice(&piece[..read]),
            _ => return,
        }
    }
    let answer =
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let _ = caller.write_all(answer).await;
    let _ = caller.shutdown().await;
}
