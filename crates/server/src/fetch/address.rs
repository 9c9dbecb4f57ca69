//! Which addresses everybody can reach, after the registries of special addresses (IANA; RFC 6890 and those after it).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::hosts::Reach;

/// Whether a connection to `address` may be opened.
pub(super) fn may_reach(address: IpAddr, reach: Reach) -> bool {
    let address = embedded(address);
    is_public(address) || (reach == Reach::Private && is_private(address))
}

/// The address that a packet ends up at: some of the newer kind only hold one of the older.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let [a, b, c, d, e, f, g, h] = six.segments();
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => {
            IpAddr::V4(Ipv4Addr::from_bits(u32::from(g) << 16 | u32::from(h)))
        }
        _ => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|(net, length)| in_v4(address, *net, *length)),
        IpAddr::V6(address) => {
            in_v6(address, GLOBAL_V6) && !SPECIAL_V6.iter().any(|net| in_v6(address, *net))
        }
    }
}

/// This machine's own addresses and those of private networks. Those that hold only on one cable are not among them:
/// what answers there is a cloud's service that gives out keys, and no store of pictures.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let shared = in_v4(address, [100, 64, 0, 0], 10);
            address.is_loopback() || address.is_private() || shared
        }
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    }
}

const SPECIAL_V4: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// All that has been given out so far; the rest of the space is special.
const GLOBAL_V6: (u128, u32) = (0x2000 << 112, 3);

/// Protocols and tunnels (2001::/23), documentation (2001:db8::/32, 3fff::/20), 6to4 (2002::/16).
const SPECIAL_V6: [(u128, u32); 4] =
    [(0x2001 << 112, 23), (0x2001_0db8 << 96, 32), (0x2002 << 112, 16), (0x3fff << 112, 20)];

fn in_v4(address: Ipv4Addr, net: [u8; 4], length: u32) -> bool {
    (address.to_bits() ^ u32::from_be_bytes(net)) >> (32 - length) == 0
}

fn in_v6(address: Ipv6Addr, (net, length): (u128, u32)) -> bool {
    (address.to_bits() ^ net) >> (128 - length) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_by_who_can_reach_them() {
        let check = |addresses: &[&str], [public, private]: [bool; 2]| {
            for address in addresses {
                let address: IpAddr = address.parse().unwrap();
                assert_eq!(may_reach(address, Reach::Public), public, "{address}");
                assert_eq!(may_reach(address, Reach::Private), private, "{address}");
            }
        };
        check(&["1.1.1.1", "93.184.215.14", "172.32.0.1", "198.20.0.1", "223.255.255.255"], [true, true]);
        check(&["2606:4700::1111", "2a00::1", "64:ff9b::1.1.1.1", "::ffff:8.8.8.8"], [true, true]);
        check(&["127.0.0.1", "127.255.0.9", "10.1.2.3", "172.31.255.255", "192.168.0.1"], [false, true]);
        check(&["100.127.0.1", "::1", "fd00::1", "fc00::1", "::ffff:10.0.0.1"], [false, true]);
        check(&["::ffff:127.0.0.1", "64:ff9b::127.0.0.1"], [false, true]);
        check(
            &["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"],
            [false, false],
        );
        check(&["0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "ff02::1", "240.0.0.1"], [false, false]);
        check(&["192.0.2.1", "198.51.100.1", "203.0.113.1", "198.19.0.1", "192.0.0.1"], [false, false]);
        check(
            &["2001:db8::1", "2001::1", "2002:7f00:1::", "3fff::1", "64:ff9b:1::1", "fec0::1"],
            [false, false],
        );
        check(&["::127.0.0.1", "4000::1", "100::1"], [false, false]);
    }
}
