//! Reading without a buffer of one's own.

use std::cell::RefCell;
use std::io;

use tokio::net::TcpStream;

thread_local! {
    /// Where a thread's connections read, one after the other: none holds memory while it waits.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 64 * 1024].into_boxed_slice());
}

/// Waits for octets and hands them to `take` where they lie; `None` at the end of TCP.
pub(crate) async fn read_shared<T>(socket: &TcpStream, mut take: impl FnMut(&mut [u8]) -> T) -> io::Result<Option<T>> {
    loop {
        socket.readable().await?;
        let taken = SCRATCH.with_borrow_mut(|scratch| match socket.try_read(scratch) {
            Ok(0) => Ok(None),
            Ok(got) => Ok(Some(take(&mut scratch[..got]))),
            Err(error) => Err(error),
        });
        match taken {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}
