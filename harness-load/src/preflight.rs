//! What the machine may run out of, said before a load starts: descriptors and ephemeral ports.

/// Descriptors a process needs besides its connections.
const OTHERS: u64 = 16;

/// Warnings for a load of so many iterations in flight; empty where nothing can be read.
pub(crate) fn warnings(in_flight: usize) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let descriptors = descriptors(&read("/proc/self/limits"), open, in_flight as u64);
    let ports = ports(&read("/proc/sys/net/ipv4/ip_local_port_range"), in_flight as u64);
    descriptors.into_iter().chain(ports).collect()
}

/// `/proc/self/limits` (proc(5)): a row of name, soft limit, hard limit, unit.
fn descriptors(limits: &str, open: u64, in_flight: u64) -> Option<String> {
    let row = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft: u64 = row.split_whitespace().next()?.parse().ok()?;
    (in_flight + open + OTHERS > soft).then(|| {
        format!(
            "{in_flight} in flight may need more descriptors than the {soft} this process may open ({open} are open): \
             raise `ulimit -n` or lower `.in_flight(..)`"
        )
    })
}

/// Connections to one address each take a port of this range (ip(7)).
fn ports(range: &str, in_flight: u64) -> Option<String> {
    let mut ends = range.split_whitespace().map_while(|end| end.parse::<u64>().ok());
    let (low, high) = (ends.next()?, ends.next()?);
    let ports = (high + 1).saturating_sub(low);
    (in_flight > ports).then(|| {
        format!(
            "{in_flight} in flight may need more ephemeral ports than the {ports} there are for one address: widen \
             net.ipv4.ip_local_port_range, use several addresses of 127.0.0.0/8, or lower `.in_flight(..)`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{descriptors, ports};

    const LIMITS: &str = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";

    #[test]
    fn too_few_descriptors_and_ports_are_said_beforehand() {
        assert!(descriptors(LIMITS, 10, 999).unwrap().contains("1024"));
        assert_eq!(descriptors(LIMITS, 10, 998), None);
        assert!(ports("32768\t60999\n", 28_233).unwrap().contains("28232"));
        assert_eq!(ports("32768\t60999\n", 28_232), None);
    }

    #[test]
    fn what_cannot_be_read_warns_of_nothing() {
        for text in ["", "Max open files unlimited unlimited files", "nonsense"] {
            assert_eq!(descriptors(text, 0, u64::MAX / 2), None);
            assert_eq!(ports(text, u64::MAX / 2), None);
        }
    }
}
