//! The others: tokio's `copy_bidirectional`, and noxious, each on a thread of its own as our proxy is.

use std::net::SocketAddr;
use std::sync::mpsc::channel;

use noxious::proxy::{ProxyConfig, ProxyRunner, Runner, Toxics};
use noxious::signal::{Close, Stop};
use noxious::socket::TcpListener as NoxiousListener;
use noxious::toxic::{StreamDirection, Toxic, ToxicKind};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

use peers_common::{Failure, Result};

/// A relay by `copy_bidirectional` with buffers of 256 KiB. It ends with the process.
pub(crate) fn tokio_copy(upstream: SocketAddr) -> Result<SocketAddr> {
    on_a_thread(async move |told| {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        told(listener.local_addr()?);
        loop {
            let (mut client, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut server = TcpStream::connect(upstream).await?;
                client.set_nodelay(true)?;
                server.set_nodelay(true)?;
                copy_bidirectional_with_sizes(&mut client, &mut server, 256 << 10, 256 << 10).await
            });
        }
    })
}

/// A proxy of noxious, with so many milliseconds of latency to the server, or without a toxic.
pub(crate) fn noxious(upstream: SocketAddr, latency_ms: Option<u64>) -> Result<SocketAddr> {
    on_a_thread(async move |told| {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = ProxyConfig {
            name: "peer".to_owned(),
            listen: port.to_string(),
            upstream: upstream.to_string(),
            enabled: true,
            rand_seed: Some(1),
        };
        let mut toxics = Toxics::empty();
        toxics.upstream.extend(latency_ms.map(|latency| Toxic {
            kind: ToxicKind::Latency { latency, jitter: 0 },
            name: "latency".to_owned(),
            toxicity: 1.0,
            direction: StreamDirection::Upstream,
        }));
        let (listener, info) = ProxyRunner::initialize_proxy::<NoxiousListener>(config, toxics).await?;
        let (_events, receiver) = bmrng::channel(1);
        let (stop, _stopper) = Stop::new();
        let (_closed, closer) = Close::new();
        told(port);
        Ok(ProxyRunner::run_proxy(listener, info, receiver, stop, closer).await?)
    })
}

/// Runs it on a thread with a runtime of one thread, until it says its address.
fn on_a_thread<F>(run: F) -> Result<SocketAddr>
where
    F: AsyncFnOnce(Box<dyn Fn(SocketAddr) + Send>) -> Result<()> + Send + 'static,
{
    let (teller, address) = channel::<std::result::Result<SocketAddr, String>>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let said = teller.clone();
        let told = Box::new(move |address| _ = said.send(Ok(address)));
        if let Err(error) = runtime.block_on(run(told)) {
            let _ = teller.send(Err(error.to_string()));
        }
    });
    address.recv()?.map_err(Failure::from)
}
