//! Whatever happens to the core, what has to hold holds.
#![no_main]

use dataplane_common::{
    family::{V4, V6},
    testing::operations::play,
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    play::<V4>(bytes);
    play::<V6>(bytes);
});
