//! The demo's scenarios come out the same without portway and with it.

use std::process::ExitCode;

use portway_tests::{
    docker::DockerLab,
    harness::{self, Test},
    scenarios::{self, published_port, taken_port},
};

fn main() -> ExitCode {
    let with_proxy = scenarios::ALL.map(|scenario| {
        Test::with_docker(scenario.name, move || scenario.test(&DockerLab::new()?))
    });
    // Those of them that docker-proxy has a part in.
    let without_proxy = [
        (
            "published-port-without-docker-proxy",
            published_port::SCENARIO,
        ),
        ("taken-port-without-docker-proxy", taken_port::SCENARIO),
    ];
    let without_proxy = without_proxy.map(|(name, scenario)| {
        Test::with_dockerd(name, move || scenario.test(&DockerLab::without_proxy()?))
    });
    harness::run(with_proxy.into_iter().chain(without_proxy))
}
