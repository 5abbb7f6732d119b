//! `portway unload`.

use crate::{
    dataplane::Dataplane,
    hooks::{self, Role},
    instance::{Instance, Lock},
    netlink::Netlink,
};

/// Detaches and removes everything.
pub async fn unload(instance: Instance) -> anyhow::Result<()> {
    let lock = instance.lock()?;
    let was_loaded = instance.is_loaded()?;
    tear_down(&instance, &lock).await?;
    if was_loaded {
        println!("unloaded");
    } else {
        println!("nothing to do: instance {instance} is not loaded");
    }
    Ok(())
}

/// Detaches and removes everything, also what an interrupted load has left.
pub async fn tear_down(instance: &Instance, lock: &Lock) -> anyhow::Result<()> {
    // Without its maps there is nothing to be known of clsact filters; pins can go all the same.
    let mut result = Ok(());
    if let Ok(mut dataplane) = Dataplane::open_maps(instance) {
        let netlink = Netlink::connect()?;
        for role in Role::ALL {
            let detached =
                hooks::detach_others(instance, &mut dataplane, &netlink, role, &[].into()).await;
            result = result.and(detached);
        }
    }
    result.and(instance.remove_pins(lock))
}
