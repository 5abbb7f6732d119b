//! The eBPF programs are in the binary of this package, for the `bpfel-unknown-none` target. This empty
//! library lets the controller's build script depend on them.
#![no_std]
