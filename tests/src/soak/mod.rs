//! Everything at once, for long: containers come and go, ports move, rules change, traffic flows, and `run` is killed;
//! and all the while every packet is accounted for.
//!
//! | module | is about |
//! |---|---|
//! | [`lanes`] | what is published, to whom |
//! | [`world`] | the host, to which any [`event`] can happen |
//! | [`traffic`] | the clients: [`datagrams`], [`connections`] |
//! | [`server`] | what runs in a container |
//! | [`notice`] | those who take notice of what comes there, and of what is dropped |
//! | [`drops`], [`btf`], [`passes`] | what the kernel drops, and why; its types; how often it does |
//! | [`ledger`] | what has become of every packet, and whether it may; [`sums`] of it |
//! | [`history`], [`times`] | what has been done to the host, and when, which excuses what comes to nothing |
//! | [`shared`] | what all threads have in common |
//! | [`gauge`] | memory, and how full the maps are |

pub mod btf;
pub mod connections;
pub mod datagrams;
pub mod drops;
pub mod event;
pub mod gauge;
pub mod history;
pub mod lanes;
pub mod ledger;
pub mod notice;
pub mod passes;
pub mod server;
pub mod shared;
pub mod sums;
pub mod times;
pub mod traffic;
pub mod world;
