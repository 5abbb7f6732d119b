//! Servers in a container and their clients outside: real sockets, and no more behind them than it takes.
//!
//! | module | is about |
//! |---|---|
//! | [`server`] | a container's servers |
//! | [`bulk`] | as many bytes as go through |
//! | [`requests`] | short requests over lasting connections |
//! | [`connections`] | a connection for each request |
//! | [`datagrams`] | a UDP socket that is only read |
//! | [`exchange`] | what requests and answers look like |

pub mod bulk;
pub mod connections;
pub mod datagrams;
pub mod exchange;
pub mod requests;
pub mod server;
