//! The client's side of a WebSocket, down to its frames.

use std::io;
use std::os::fd::AsRawFd;

use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Account, PATIENCE};

/// The key of RFC 6455's example, and what a server makes of it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request that asks for a WebSocket, and may be changed.
pub(crate) struct Handshake {
    address: String,
    line: String,
    headers: Vec<(String, String)>,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

/// An open WebSocket.
pub(crate) struct Socket {
    frames: FragmentCollector<TcpStream>,
    descriptor: i32,
    pub(crate) head: Head,
}

/// What was received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    Ping(Vec<u8>),
    Close(u16, String),
    /// The connection ended without a Close frame.
    Gone,
}

impl Account {
    /// The handshake with one of its functions; `path` begins with the name.
    pub(crate) fn web_socket(&self, path: &str) -> Handshake {
        self.web_socket_of(&self.user_name, path)
    }

    /// The same with a function of this user.
    pub(crate) fn web_socket_of(&self, user_name: &str, path: &str) -> Handshake {
        let address = self.gateway_base().trim_start_matches("http://").to_owned();
        let handshake = Handshake {
            line: format!("GET /run/{user_name}/{path} HTTP/1.1"),
            headers: Vec::new(),
            address: address.clone(),
        };
        let handshake = handshake
            .with("host", &address)
            .with("connection", "keep-alive, Upgrade")
            .with("upgrade", "websocket")
            .with("sec-websocket-version", "13")
            .with("sec-websocket-key", KEY);
        if self.credential.is_empty() {
            return handshake;
        }
        handshake.with("authorization", &format!("Bearer {}", self.credential))
    }
}

impl Handshake {
    /// The same with this header instead of any of its name; an empty one is left out.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The same with another request line's end.
    pub(crate) fn over(mut self, from: &str, to: &str) -> Self {
        self.line = self.line.replace(from, to);
        self
    }

    /// Sends it; gives the answer's head and the connection.
    async fn send(&self) -> (Head, TcpStream) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let headers = self.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        let mut lines = vec![self.line.clone()];
        lines.extend(headers);
        let text = lines.join("\r\n") + "\r\n\r\n";
        stream.write_all(text.as_bytes()).await.unwrap();
        let head = timeout(PATIENCE, Head::read(&mut stream)).await.expect("an answer");
        (head, stream)
    }

    /// Opens the WebSocket.
    pub(crate) async fn open(&self) -> Socket {
        let (head, stream) = self.send().await;
        assert_eq!(head.status, 101, "{head:?}");
        assert_eq!(head.header("upgrade"), "websocket");
        assert_eq!(head.header("connection"), "upgrade");
        assert_eq!(head.header("sec-websocket-accept"), ACCEPT);
        assert!(!head.header("x-cloudserve-execution-id").is_empty());
        let descriptor = stream.as_raw_fd();
        let mut socket = WebSocket::after_handshake(stream, Role::Client);
        socket.set_auto_close(false);
        socket.set_auto_pong(false);
        Socket { frames: FragmentCollector::new(socket), descriptor, head }
    }

    /// Sends it where it is answered like any request; gives head and body.
    pub(crate) async fn plain(&self) -> (Head, String) {
        let (head, mut stream) = self.send().await;
        assert_ne!(head.status, 101, "{head:?}");
        let length = head.header("content-length").parse().unwrap();
        let mut body = vec![0; length];
        timeout(PATIENCE, stream.read_exact(&mut body)).await.expect("a body").unwrap();
        (head, String::from_utf8(body).unwrap())
    }
}

impl Head {
    /// Byte by byte: what comes after it is not its own.
    async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(stream.read_u8().await.unwrap());
        }
        let text = String::from_utf8(bytes).unwrap();
        let mut lines = text.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Self { status, headers: headers.collect() }
    }

    /// A header; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// Which call this is.
    pub(crate) fn execution(&self) -> &str {
        self.header("x-cloudserve-execution-id")
    }
}

impl Socket {
    async fn write(&mut self, frame: Frame<'_>) {
        timeout(PATIENCE, self.frames.write_frame(frame)).await.expect("it takes frames").unwrap();
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.write(Frame::text(Payload::Owned(text.as_bytes().to_vec()))).await;
    }

    pub(crate) async fn binary(&mut self, bytes: &[u8]) {
        self.write(Frame::binary(Payload::Owned(bytes.to_vec()))).await;
    }

    pub(crate) async fn ping(&mut self, bytes: &[u8]) {
        let payload = Payload::Owned(bytes.to_vec());
        self.write(Frame::new(true, OpCode::Ping, None, payload)).await;
    }

    pub(crate) async fn pong(&mut self, bytes: &[u8]) {
        self.write(Frame::pong(Payload::Owned(bytes.to_vec()))).await;
    }

    pub(crate) async fn close(&mut self, code: u16, reason: &str) {
        self.write(Frame::close(code, reason.as_bytes())).await;
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Message {
        let frame = timeout(PATIENCE, self.frames.read_frame()).await.expect("a frame");
        let Ok(frame) = frame else { return Message::Gone };
        let bytes = frame.payload.to_vec();
        match frame.opcode {
            OpCode::Text => Message::Text(String::from_utf8(bytes).unwrap()),
            OpCode::Binary => Message::Binary(bytes),
            OpCode::Ping => Message::Ping(bytes),
            OpCode::Pong => Message::Pong(bytes),
            OpCode::Close => {
                let code = bytes.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                let reason = bytes.get(2..).unwrap_or_default().to_vec();
                Message::Close(code, String::from_utf8(reason).unwrap())
            }
            OpCode::Continuation => panic!("fragments are collected"),
        }
    }

    /// Bytes that have come and were not read.
    pub(crate) fn unread_bytes(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open as long as `self` is; the kernel writes one number.
        let result = unsafe { libc::ioctl(self.descriptor, libc::FIONREAD, &raw mut bytes) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        usize::try_from(bytes).unwrap()
    }
}
