//! Ready-made targets, and the trait for one's own: users who keep something between iterations, such as a connection.
//!
//! ```
//! use harness_load::target::Target;
//! use harness_load::{Iteration, Load, millis, per_second};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! /// Any driver will do: what `connect` makes stays with one user until an iteration fails.
//! struct Echo(std::net::SocketAddr);
//!
//! impl Target for Echo {
//!     type User = TcpStream;
//!     type Error = std::io::Error;
//!
//!     async fn connect(&self) -> Result<TcpStream, std::io::Error> {
//!         TcpStream::connect(self.0).await
//!     }
//!
//!     async fn call(&self, connection: &mut TcpStream, _: &Iteration) -> Result<(), std::io::Error> {
//!         connection.write_u8(7).await?;
//!         connection.read_u8().await.map(|_| ())
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
//! # let address = listener.local_addr().unwrap();
//! # tokio::spawn(async move { loop {
//! #     let (mut connection, _) = listener.accept().await.unwrap();
//! #     tokio::spawn(async move { while let Ok(byte) = connection.read_u8().await { connection.write_u8(byte).await.unwrap(); } });
//! # } });
//! let run = Load::open(per_second(100)).hold(millis(200)).target("echo", 1, Echo(address)).run().await.unwrap();
//! assert_eq!(run.cell("hold", "echo").unwrap().ok, 20);
//! # });
//! ```
//!
//! Ready-made are HTTP/1.1 over connections that stay open, Redis commands, calls over WebSocket, and with the feature `sql`
//! statements of Postgres. Any driver makes a target of one's own: `sqlx::PgConnection` as its user, a query as its call.

mod http;
mod resp;
#[cfg(feature = "sql")]
mod sql;
mod websocket;

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::engine::{Flow, Iteration, io_kind};

pub use http::{Answer, Http1, Http1Error, HttpRequest};
pub use resp::{Resp, RespCommand, RespError};
#[cfg(feature = "sql")]
pub use sql::{Sql, SqlError, SqlStatement};
pub use websocket::{WebSocket, WebSocketCall, WebSocketError};

/// Something to send load to, with a state for each user.
///
/// A user is made when an iteration finds none free, within that iteration, so that connecting counts into its
/// response. It serves one iteration at a time, and goes on to the next after a success. After an error, a timeout or a
/// panic its connection may hold half an answer, so it is dropped, unless [`Target::keeps`] says otherwise.
pub trait Target: Send + Sync + 'static {
    /// What a user keeps between iterations.
    type User: Send + 'static;
    /// What connecting and calling may fail with.
    type Error: fmt::Display + Send + 'static;

    /// Makes a user.
    fn connect(&self) -> impl Future<Output = Result<Self::User, Self::Error>> + Send;

    /// One iteration.
    fn call(
        &self,
        user: &mut Self::User,
        iteration: &Iteration,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// True if the user may go on after this error: an answer that was read to its end, but was not the expected one.
    fn keeps(&self, error: &Self::Error) -> bool {
        let _ = error;
        false
    }
}

/// A flow whose iterations are calls of a target.
pub(crate) fn flow<T: Target>(name: String, weight: u32, target: T) -> Flow {
    let target = Arc::new(target);
    Flow::new(name, weight, move |iteration| {
        let target = target.clone();
        async move {
            let mut user = match iteration.board.take_user::<T::User>() {
                Some(user) => user,
                None => Box::new(target.connect().await?),
            };
            let called = target.call(&mut user, &iteration).await;
            if called.as_ref().err().is_none_or(|error| target.keeps(error)) {
                iteration.board.keep_user(user);
            }
            called
        }
    })
}

/// What kind an error of a ready-made target is.
pub(crate) fn known_kind(error: &dyn Any) -> Option<Cow<'static, str>> {
    if let Some(error) = error.downcast_ref::<Http1Error>() {
        return Some(match error {
            Http1Error::Io(error) => io_kind(error).into(),
            Http1Error::Garbage(_) => "garbage".into(),
            Http1Error::Status(status) => format!("status {status}").into(),
        });
    }
    if let Some(error) = error.downcast_ref::<RespError>() {
        return Some(match error {
            RespError::Io(error) => io_kind(error).into(),
            RespError::Garbage(_) => "garbage".into(),
            // The server's own word comes first: `OOM`, `WRONGTYPE`, `ERR`.
            RespError::Refused(why) => why.split(' ').next().unwrap_or("refused").to_owned().into(),
        });
    }
    #[cfg(feature = "sql")]
    if let Some(error) = error.downcast_ref::<SqlError>() {
        return Some(match error {
            SqlError::Io(error) => io_kind(error).into(),
            SqlError::Garbage(_) => "garbage".into(),
            SqlError::Unsupported(_) => "unsupported".into(),
            SqlError::Refused { state, .. } => format!("sqlstate {state}").into(),
        });
    }
    Some(match error.downcast_ref::<WebSocketError>()? {
        WebSocketError::Io(error) => io_kind(error).into(),
        WebSocketError::Refused(_) => "refused".into(),
        WebSocketError::Closed => "closed".into(),
    })
}
