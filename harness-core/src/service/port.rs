//! Free ports without races.
//!
//! Asking the kernel for port 0 and closing the socket hands the number to whoever asks next. A [`Port`] is taken outside
//! the kernel's ephemeral range, so no outgoing connection can sit on it, and a file lock held for life keeps every
//! other harness process away from it.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{CoreResult, Error, ErrorKind};
use crate::keeper::{base, lock};

/// Ports below this are left to well-known servers of developers.
const LOWEST: u16 = 15_000;
/// Where the ephemeral range begins if the kernel does not say.
const EPHEMERAL: u16 = 32_768;

/// A port of 127.0.0.1 that is ours until this value is dropped.
#[derive(Debug)]
#[must_use = "dropped here means another process may get this port"]
pub struct Port {
    number: u16,
    path: PathBuf,
    _lock: File,
}

impl Port {
    /// Takes a free port.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when every port of the range is taken or the state directory cannot be used.
    pub fn reserve() -> CoreResult<Self> {
        let (low, high) = range();
        let width = u32::from(high - low);
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        // Processes begin at different places, so that they rarely try each other's ports.
        let begin = std::process::id().wrapping_mul(2_654_435_761).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        for n in 0..width {
            let number = low + u16::try_from(begin.wrapping_add(n) % width).unwrap_or_default();
            if let Some(port) = Self::take(number)? {
                return Ok(port);
            }
        }
        Err(Error::new(ErrorKind::Environment, format!("no port of {low}..{high} is free on 127.0.0.1"))
            .remedy("end servers that are not needed; `harness sweep --list` names the harness' own"))
    }

    /// Takes this port, if it is free.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when somebody has it.
    pub fn exactly(number: u16) -> CoreResult<Self> {
        Self::take(number)?.ok_or_else(|| {
            Error::new(ErrorKind::Environment, format!("port {number} of 127.0.0.1 is taken"))
                .remedy("name another port, or end the process that listens there")
        })
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The address: 127.0.0.1 and the number.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }

    fn take(number: u16) -> CoreResult<Option<Self>> {
        let dir = base::dir()?.join("ports");
        base::create_dir(&dir)?;
        let path = dir.join(number.to_string());
        let Some(file) = lock::try_exclusive(&path).map_err(|error| base::unusable(&path, error))? else {
            return Ok(None);
        };
        let port = Self { number, path, _lock: file };
        // Somebody outside the family may listen. Dropping the listener leaves nothing behind: it accepted nobody.
        Ok(TcpListener::bind(port.address()).is_ok().then_some(port))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Removed while locked: whoever opened it meanwhile sees that it locked a file without a name, and opens anew.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes the lock files of ports whose owners were killed.
pub(crate) fn forget_dead_ports(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base.join("ports")) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if let Ok(Some(_lock)) = lock::try_exclusive(&path) {
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// The widest stretch outside the kernel's ephemeral range.
fn range() -> (u16, u16) {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range_beside(&text)
}

fn range_beside(ephemeral: &str) -> (u16, u16) {
    let mut bounds = ephemeral.split_whitespace().map_while(|word| word.parse::<u16>().ok());
    let low = bounds.next().unwrap_or(EPHEMERAL);
    let high = bounds.next().unwrap_or(60_999);
    let below = (LOWEST, low);
    let above = (high.saturating_add(1), u16::MAX);
    // Below is preferred; a range that begins low leaves the part above, and one that leaves nothing leaves no choice.
    [below, above].into_iter().find(|(from, to)| to.saturating_sub(*from) >= 1_000).unwrap_or((LOWEST, EPHEMERAL))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{Port, range_beside};

    #[test]
    fn stays_outside_the_ephemeral_range() {
        assert_eq!(range_beside("32768\t60999\n"), (15_000, 32_768));
        assert_eq!(range_beside("1024 60999"), (61_000, 65_535));
        assert_eq!(range_beside("1024 65535"), (15_000, 32_768));
        assert_eq!(range_beside("nonsense"), (15_000, 32_768));
    }

    #[test]
    fn a_port_is_handed_out_once_and_again_after_its_life() {
        let port = Port::reserve().unwrap();
        let error = Port::exactly(port.number()).unwrap_err();
        assert!(error.is_environment() && error.what().contains("is taken"), "{error:?}");
        let number = port.number();
        drop(port);
        assert_eq!(Port::exactly(number).unwrap().number(), number);
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_handed_out() {
        let port = Port::reserve().unwrap();
        let (number, stranger) = (port.number(), TcpListener::bind(port.address()).unwrap());
        drop(port);
        assert!(Port::exactly(number).is_err());
        drop(stranger);
        assert!(Port::exactly(number).is_ok());
    }
}
