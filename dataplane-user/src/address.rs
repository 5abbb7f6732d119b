//! Addresses as people and the kernel's tables of the network have them, and as the programs' maps do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_common::{
    headers::{Be32, Ip6},
    pod::IpAddress,
};

/// An address of one IP version as the maps have it.
pub trait Address: IpAddress {
    /// From an address of this version; none of the other.
    fn from_ip(ip: IpAddr) -> Option<Self>;

    /// As everybody else has it.
    fn to_ip(self) -> IpAddr;
}

impl Address for Be32 {
    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) => Some(Self::new(ip.to_bits())),
            IpAddr::V6(_) => None,
        }
    }

    fn to_ip(self) -> IpAddr {
        Ipv4Addr::from_bits(self.get()).into()
    }
}

impl Address for Ip6 {
    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(Self::new(ip.octets())),
        }
    }

    fn to_ip(self) -> IpAddr {
        Ipv6Addr::from(self.bytes()).into()
    }
}

/// As [`Backend::address`](dataplane_common::published::Backend::address) has it.
pub fn words(ip: IpAddr) -> [u32; 4] {
    match ip {
        IpAddr::V4(ip) => [u32::from_ne_bytes(ip.octets()), 0, 0, 0],
        IpAddr::V6(ip) => Ip6::new(ip.octets()).raw(),
    }
}

#[cfg(test)]
mod tests {
    use dataplane_common::family::{Family, V4, V6};

    use super::*;

    #[test]
    fn an_address_is_the_same_in_maps_and_backends() {
        let v4: IpAddr = "192.0.2.1".parse().expect("an address");
        let v6: IpAddr = "2001:db8::1:2".parse().expect("an address");
        assert_eq!(Be32::from_ip(v4).map(Address::to_ip), Some(v4));
        assert_eq!(Ip6::from_ip(v6).map(Address::to_ip), Some(v6));
        assert_eq!((Be32::from_ip(v6), Ip6::from_ip(v4)), (None, None));
        assert_eq!(Some(V4::from_words(&words(v4))), Be32::from_ip(v4));
        assert_eq!(Some(V6::from_words(&words(v6))), Ip6::from_ip(v6));
    }
}
