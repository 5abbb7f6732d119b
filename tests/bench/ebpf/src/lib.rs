//! What the bench's eBPF programs and the bench itself have to agree on.
#![no_std]
