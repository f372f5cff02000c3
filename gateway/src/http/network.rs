//! Networks of addresses, as operators write them. Pure.

use std::{net::IpAddr, str::FromStr};

/// A network such as `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: u128,
    mask: u128,
}

/// This machine.
pub(crate) const LOOPBACK: [Cidr; 2] = [
    Cidr {
        network: 0xffff_7f00_0000,
        mask: u128::MAX << 24,
    },
    Cidr {
        network: 1,
        mask: u128::MAX,
    },
];

impl Cidr {
    /// Whether it holds every IPv4 or every IPv6 address.
    pub fn is_everybody(&self) -> bool {
        self.mask.count_ones() <= 96 && (self.mask == 0 || self.network == 0xffff_0000_0000)
    }

    /// Whether some address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let both = self.mask & other.mask;
        self.network & both == other.network & both
    }

    /// Whether the address is inside. An IPv4 address written inside IPv6 counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        bits(ip) & self.mask == self.network
    }
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ip, length) = match text.split_once('/') {
            Some((ip, length)) => (ip, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| ())?;
        let width: u32 = if ip.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().map_err(|_| ())?,
            None => width,
        };
        if length > width {
            return Err(());
        }
        // IPv4 sits in the last 32 bits of ::ffff:0:0/96.
        let ones = length + 128 - width;
        let mask = if ones == 0 {
            0
        } else {
            u128::MAX << (128 - ones)
        };
        Ok(Self {
            network: bits(ip) & mask,
            mask,
        })
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses_only() {
        let inside =
            |cidr: &str, ip: &str| cidr.parse::<Cidr>().unwrap().contains(ip.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.255.0.1"));
        assert!(!inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(inside("2001:db8::/32", "2001:db8::1"));
        assert!(!inside("2001:db8::/32", "2001:db9::1"));
        assert!(inside("0.0.0.0/0", "192.0.2.1") && !inside("0.0.0.0/0", "2001:db8::1"));
        assert!(inside("::/0", "192.0.2.1"));
        let is_everybody = |text: &str| text.parse::<Cidr>().unwrap().is_everybody();
        assert!(is_everybody("0.0.0.0/0") && is_everybody("::/0"));
        assert!(!is_everybody("10.0.0.0/8") && !is_everybody("2001:db8::/32"));
        let [v4, v6] = LOOPBACK;
        assert_eq!(("127.0.0.0/8".parse(), "::1".parse()), (Ok(v4), Ok(v6)));
        let overlap = |a: &str, b: &str| {
            let (a, b): (Cidr, Cidr) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(a.overlaps(&b), b.overlaps(&a));
            a.overlaps(&b)
        };
        assert!(overlap("10.0.0.0/8", "10.1.2.3") && overlap("0.0.0.0/0", "127.0.0.1"));
        assert!(!overlap("10.0.0.0/8", "11.0.0.0/8") && !overlap("::1", "127.0.0.0/8"));
        for bad in ["10.0.0.0/33", "x", "10.0.0.0/", "::/129"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
