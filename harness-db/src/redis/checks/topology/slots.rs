//! Slots of a cluster: which key lies where, and the map a node has of its peers (Redis Cluster specification).

use std::net::SocketAddr;

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16_384;

/// The slot of a key: CRC16 (XMODEM) of the key, or of what stands between its first `{` and the next `}`, modulo 16384.
#[must_use]
pub fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes()) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

/// One line of `CLUSTER NODES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) id: String,
    pub(super) address: SocketAddr,
    pub(super) flags: Vec<String>,
    pub(super) master: Option<String>,
    pub(super) linked: bool,
    pub(super) slots: Vec<(u16, u16)>,
}

impl Peer {
    pub(super) fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }

    /// A primary that lives, as far as is known, and owns the slot.
    pub(super) fn owns(&self, slot: u16) -> bool {
        let mut slots = self.slots.iter();
        self.is("master") && !self.is("fail") && slots.any(|(from, to)| (*from..=*to).contains(&slot))
    }
}

/// Reads `CLUSTER NODES`: id, ip:port@bus, flags, primary's id, ping, pong, epoch, link, slots. Lines without an address
/// (a peer that is not known yet) are left out.
pub(super) fn peers(map: &str) -> Vec<Peer> {
    map.lines().filter_map(peer).collect()
}

fn peer(line: &str) -> Option<Peer> {
    let mut words = line.split_whitespace();
    let id = words.next()?.to_owned();
    let address = words.next()?.split('@').next()?.parse().ok()?;
    let flags = words.next()?.split(',').map(str::to_owned).collect();
    let master = words.next().filter(|id| *id != "-").map(str::to_owned);
    let linked = words.nth(3)? == "connected";
    let slots = words.filter(|word| !word.starts_with('[')).filter_map(|word| {
        let (from, to) = word.split_once('-').unwrap_or((word, word));
        Some((from.parse().ok()?, to.parse().ok()?))
    });
    Some(Peer { id, address, flags, master, linked, slots: slots.collect() })
}

#[cfg(test)]
mod tests {
    use super::{crc16, peers, slot_of};

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3, "the reference value of CRC16/XMODEM");
        assert_eq!((slot_of("foo"), slot_of("bar")), (12182, 5061));
        assert_eq!(slot_of("{user1000}.following"), slot_of("{user1000}.followers"));
        assert_ne!(slot_of("{user1000}.following"), slot_of("{user1001}.following"));
        assert_eq!(slot_of("foo{}{bar}"), crc16(b"foo{}{bar}") % 16_384, "an empty tag is no tag");
        assert_eq!(slot_of("foo{{bar}}zap"), slot_of("{bar"));
    }

    #[test]
    fn the_map_of_a_node_is_read() {
        let map = "aa 127.0.0.1:7001@17001,host myself,master - 0 0 1 connected 0-100 200 [5->-bb]\n\
                   bb 127.0.0.1:7002@17002 slave aa 0 1 1 connected\n\
                   cc 127.0.0.1:7003@17003 master,fail - 0 1 3 disconnected 101-199\n\
                   dd :0@0 master,noaddr - 0 1 0 disconnected\n";
        let peers = peers(map);
        assert_eq!(peers.len(), 3);
        assert!(peers[0].owns(0) && peers[0].owns(200) && !peers[0].owns(150) && peers[0].linked);
        assert_eq!(peers[1].master.as_deref(), Some("aa"));
        assert!(!peers[2].owns(150), "a primary that failed owns nothing any more");
    }
}
