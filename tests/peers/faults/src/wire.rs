//! Servers and clients of the measurements: blocking, on threads of their own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use peers_common::Result;

/// Bytes of a question and its answer.
const QUESTION: usize = 64;

/// A server that says back what it hears. It ends with the process.
pub(crate) fn echo() -> Result<SocketAddr> {
    serve(|mut stream| {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..len]).is_err() {
                return;
            }
        }
    })
}

/// A server that hears as many bytes as the first eight say, and then says one. The end of the stream is not used: not every
/// proxy hands it on.
pub(crate) fn sink() -> Result<SocketAddr> {
    serve(|mut stream| {
        let (mut buffer, mut length) = (vec![0; 256 << 10], [0; 8]);
        let mut left = stream.read_exact(&mut length).map_or(0, |()| u64::from_be_bytes(length));
        while left > 0 {
            match stream.read(&mut buffer) {
                Ok(len @ 1..) => left -= len as u64,
                _ => return,
            }
        }
        let _ = stream.write_all(b"!");
    })
}

fn serve(one: impl Fn(TcpStream) + Copy + Send + 'static) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = stream.set_nodelay(true);
            std::thread::spawn(move || one(stream));
        }
    });
    Ok(address)
}

/// A client.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// How long so many questions took, each in µs, sorted.
pub(crate) fn questions(address: SocketAddr, count: usize) -> Result<Vec<f64>> {
    let mut stream = connect(address)?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count + count / 10 {
        let begun = Instant::now();
        stream.write_all(&[7; QUESTION])?;
        stream.read_exact(&mut [0; QUESTION])?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    times.drain(..count / 10); // the first ones warm up
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// The value below which this share of the sorted values is.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted.get(((sorted.len() - 1) as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

/// Megabytes a second of so many bytes into a sink.
pub(crate) fn megabytes_a_second(address: SocketAddr, bytes: u64) -> Result<f64> {
    let mut stream = connect(address)?;
    let chunk = vec![7; 256 << 10];
    let begun = Instant::now();
    let chunks = bytes / chunk.len() as u64;
    stream.write_all(&(chunks * chunk.len() as u64).to_be_bytes())?;
    for _ in 0..chunks {
        stream.write_all(&chunk)?;
    }
    stream.read_exact(&mut [0])?;
    Ok(bytes as f64 / 1e6 / begun.elapsed().as_secs_f64())
}
