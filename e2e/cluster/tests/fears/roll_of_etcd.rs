//! Beside the fear of an upgrade: what the same load sees of the same roll of real etcd, counted the same way.

use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::load::Load;
use quorate_e2e_cluster::rival;
use quorate_e2e_cluster::store::Store;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "what it counts is etcd's: cargo xtask soak"]
async fn is_counted_the_same_way() {
    let turn = turn().await.unwrap();
    rival::import(&turn).unwrap();
    let store = Store::namespace(&turn, "roll-of-etcd").await.unwrap();
    rival::runs(&store, rival::VERSION).await.unwrap();
    let before = store.pods().await.unwrap();
    let load = Load::start(&store).await.unwrap();

    for version in [rival::NEXT_VERSION, rival::VERSION] {
        rival::runs(&store, version).await.unwrap();
    }

    let outcome = load.stop().await.unwrap();
    for (old, new) in before.iter().zip(store.pods().await.unwrap()) {
        assert_ne!(new.metadata.uid, old.metadata.uid, "every pod is another one");
    }
    // How many errors there are is etcd's affair, and how long its slowest write takes; what it acknowledged is ours to find,
    // or the comparison would count something else.
    outcome.verify(&store).await.unwrap();
}
