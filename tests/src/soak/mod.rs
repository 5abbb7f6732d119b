//! Everything at once, for long: containers come and go, ports move, rules change, traffic flows, and `run` is killed;
//! and all the while every packet is accounted for.
//!
//! | module | is about |
//! |---|---|
//! | [`lanes`] | what is published, to whom |
//! | [`world`] | the host, and all that can happen to it |
//! | [`traffic`] | the clients, and those who take notice |
//! | [`server`] | what runs in a container |
//! | [`drops`], [`btf`] | what the kernel drops, and why; its types |
//! | [`ledger`] | what has become of every packet, and whether it may |
//! | [`gauge`] | memory, and how full the maps are |

pub mod btf;
pub mod drops;
pub mod gauge;
pub mod lanes;
pub mod ledger;
pub mod server;
pub mod traffic;
pub mod world;
