//! `portway unload`.

use std::collections::HashSet;

use crate::{
    admission,
    attach::Hooks,
    dataplane::Dataplane,
    handover::HandedOver,
    hooks::Keep,
    instance::{Instance, Lock},
    netlink::Netlink,
    output::say,
    xdp::containers,
};

/// Detaches and removes everything.
pub async fn unload(instance: Instance) -> anyhow::Result<()> {
    let lock = instance.lock().await?;
    let was_loaded = instance.is_loaded()?;
    let flows = tear_down(&instance, &lock).await?;
    if was_loaded {
        say(format_args!("unloaded{flows}"));
    } else {
        say(format_args!(
            "nothing to do: instance {instance} is not loaded"
        ));
    }
    Ok(())
}

/// Leaves containers as they were before any packet came to them from XDP.
async fn put_back_containers(hooks: &mut Hooks<'_>) -> anyhow::Result<()> {
    let network = hooks.netlink.network().await?;
    containers::put_back(hooks, &network, &HashSet::new(), &HashSet::new()).await
}

/// Detaches and removes everything, also what an interrupted load has left, and tells what has become of live
/// flows. Goes on after an error and returns the first.
pub async fn tear_down(instance: &Instance, lock: &Lock) -> anyhow::Result<HandedOver> {
    let mut flows = HandedOver::default();
    let mut result = Ok(());
    // Without its maps there is nothing to be known of clsact filters; pins can go all the same.
    if let Ok(mut dataplane) = Dataplane::open_maps(instance) {
        dataplane.check_namespace(instance)?;
        match admission::end(&mut dataplane) {
            Ok(handed_over) => flows = handed_over,
            Err(error) => result = Err(error),
        }
        let netlink = Netlink::connect()?;
        let mut hooks = Hooks {
            instance,
            dataplane: &mut dataplane,
            netlink: &netlink,
        };
        let detached = hooks.detach_others(&Keep::new()).await;
        result = result.and(detached);
        let put_back = put_back_containers(&mut hooks).await;
        result = result.and(put_back);
        result = result.and(admission::restore_strictness(&mut dataplane));
    }
    result.and(instance.remove_pins(lock)).map(|()| flows)
}
