//! The engine's WebSocket, at one end of a pipe in memory. What passes through the other end is the
//! connection's bytes, so that the protocol is spoken here by the code that speaks it everywhere.

use std::io;

use bytes::Bytes;
use deno_core::{OpState, ResourceId};
use deno_runtime::deno_net::io::UnixStreamResource;
use deno_runtime::deno_net::raw::NetworkStream;
use deno_runtime::deno_websocket::ws_create_server_stream;
use tokio::net::UnixStream;

/// The server's side of a WebSocket whose handshake is done, and the bytes of its connection.
pub(crate) fn open(state: &mut OpState) -> io::Result<[ResourceId; 2]> {
    let (inner, outer) = UnixStream::pair()?;
    let socket = ws_create_server_stream(state, NetworkStream::Unix(inner), Bytes::new());
    let connection = state.resource_table.add(UnixStreamResource::new(outer.into_split()));
    Ok([socket, connection])
}
