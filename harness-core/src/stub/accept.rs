//! The listener behind the house's HTTP servers: connections live as long as its task.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::wait;

/// Serves every connection with `answer`, until it is told to stop or dropped; both end what is under way.
pub(crate) async fn accept<F, A, B>(listener: TcpListener, answer: A, mut stopped: watch::Receiver<bool>)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<Response<B>>> + Send + 'static,
    B: Body<Data = Bytes, Error = io::Error> + Send + 'static,
{
    // Dropping the set ends its tasks, so nothing outlives this one.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(serve(socket, answer.clone()));
                }
                // Out of descriptors for a moment: without a pause this would spin.
                Err(_) => wait::pause(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
            _ = stopped.changed() => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve<F, A, B>(socket: TcpStream, answer: A)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = io::Result<Response<B>>>,
    B: Body<Data = Bytes, Error = io::Error> + 'static,
{
    let _ = socket.set_nodelay(true);
    // A scripted disconnect ends here as an error; so does a client that leaves. Neither is the server's failure.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer)).await;
}
