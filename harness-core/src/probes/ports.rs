//! Ports that are open: those of a process, and who can reach them. Read from `/proc/net/tcp` (`proc_net_tcp.txt` of the kernel).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Outcome;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::service::ProcessId;

/// A socket that takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// The number by which a process's descriptors name it.
    pub inode: u64,
}

/// The listening sockets of a table of the kernel, of IPv4 or IPv6.
#[must_use]
pub fn listeners(table: &str) -> Vec<Listener> {
    const LISTEN: &str = "0A";
    let listener = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let address = SocketAddr::new(ip_of(ip)?, u16::from_str_radix(port, 16).ok()?);
        (*fields.get(3)? == LISTEN).then_some(Listener { address, inode: fields.get(9)?.parse().ok()? })
    };
    table.lines().skip(1).filter_map(listener).collect()
}

/// An address as the kernel prints it: words of four bytes, each in the order of this machine.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for at in (0..hex.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => Some(Ipv4Addr::from(v4).into()),
        Err(_) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()),
    }
}

/// Where a process and its descendants listen.
///
/// # Errors
/// [`ErrorKind::Environment`] when the kernel does not say, or not to us.
pub fn of_process(process: ProcessId) -> CoreResult<Vec<Listener>> {
    let mut sockets = BTreeSet::new();
    for process in std::iter::once(process).chain(process.descendants()) {
        let path = format!("/proc/{}/fd", process.pid);
        let entries = std::fs::read_dir(&path).map_err(|error| unreadable(&path, error))?;
        for entry in entries.flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default(); // closed in the meantime: not open any more
            let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            sockets.extend(inode.map(|inode: u64| inode));
        }
    }
    let mut found = tables(&format!("/proc/{}/net", process.pid))?;
    found.retain(|listener| sockets.contains(&listener.inode));
    Ok(found)
}

/// Who listens at a port of this machine, on whatever address.
///
/// # Errors
/// [`ErrorKind::Environment`] when the kernel does not say.
pub fn at_port(port: u16) -> CoreResult<Vec<Listener>> {
    let mut found = tables("/proc/self/net")?;
    found.retain(|listener| listener.address.port() == port);
    Ok(found)
}

fn tables(dir: &str) -> CoreResult<Vec<Listener>> {
    let path = format!("{dir}/tcp");
    let mut found = listeners(&std::fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?);
    // Without IPv6 there is no such table.
    found.extend(listeners(&std::fs::read_to_string(format!("{dir}/tcp6")).unwrap_or_default()));
    found.sort();
    Ok(found)
}

fn unreadable(path: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Environment, format!("{path} cannot be read"))
        .remedy("this needs the /proc of Linux, and the rights of the process's user")
        .caused_by(error)
}

/// Whether exactly the declared ports are open.
#[must_use]
pub fn only_declared(found: &[Listener], declared: &[SocketAddr]) -> Outcome {
    let extra: Vec<_> = found.iter().map(|one| one.address).filter(|address| !declared.contains(address)).collect();
    let closed: Vec<_> = declared.iter().filter(|address| !found.iter().any(|one| one.address == **address)).collect();
    match (extra.as_slice(), closed.as_slice()) {
        _ if found.is_empty() => Outcome::no_evidence("it listens nowhere"),
        ([], []) => Outcome::pass(addresses(found)),
        ([], closed) => Outcome::fail(format!("declared and not open: {closed:?}")),
        (extra, _) => Outcome::fail(format!("open and not declared: {extra:?}")),
    }
}

/// Whether these are reached from this machine alone.
#[must_use]
pub fn only_local(found: &[Listener]) -> Outcome {
    let wide: Vec<_> = found.iter().filter(|one| !one.address.ip().is_loopback()).copied().collect();
    match wide.as_slice() {
        _ if found.is_empty() => Outcome::no_evidence("nobody listens there"),
        [] => Outcome::pass(addresses(found)),
        wide => Outcome::fail(format!("reached from other machines: {}", addresses(wide))),
    }
}

fn addresses(found: &[Listener]) -> String {
    found.iter().map(|one| one.address.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{at_port, listeners, of_process, only_declared, only_local};
    use crate::service::ProcessId;

    #[test]
    #[cfg(target_endian = "little")]
    fn tables_of_the_kernel_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0\n\
             1: 0100007F:0BB8 0100007F:C350 01 00000000:00000005 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0\n\
             2: 00000000:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1 0 100 0 0 10 0\n\
             3: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 14\n\
             4: odd\n";
        let found = listeners(table);
        let shown: Vec<_> = found.iter().map(|one| format!("{} {}", one.address, one.inode)).collect();
        assert_eq!(shown, ["127.0.0.1:3000 11", "0.0.0.0:5432 13", "[::1]:80 14"]);
        let outcome = only_local(&found);
        assert!(outcome.is_fail() && outcome.detail() == "reached from other machines: 0.0.0.0:5432", "{outcome}");
        assert!(only_local(&found[..1]).is_pass() && only_local(&[]).is_no_evidence());
    }

    #[test]
    fn an_extra_listener_and_one_for_everybody_are_named() {
        let (declared, extra) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("0.0.0.0:0").unwrap());
        let (declared, wide) = (declared.local_addr().map(|at| (at, declared)).unwrap(), extra.local_addr().unwrap());
        let mut found = of_process(ProcessId::own()).unwrap();
        // Other tests of this process listen, too.
        found.retain(|one| [declared.0, wide].contains(&one.address));
        let outcome = only_declared(&found, &[declared.0]);
        assert!(outcome.is_fail() && outcome.detail().contains(&wide.to_string()), "{outcome}");
        assert!(only_declared(&found, &[declared.0, wide]).is_pass());
        assert!(only_local(&at_port(wide.port()).unwrap()).is_fail());
        assert!(only_local(&at_port(declared.0.port()).unwrap()).is_pass());
        found.retain(|one| one.address == wide);
        assert!(only_declared(&found, &[wide, declared.0]).is_fail(), "declared and closed");
        assert!(only_declared(&[], &[declared.0]).is_no_evidence());
    }
}
