//! Fear: clients see errors because the cluster gets smaller.

use quorate_e2e_cluster::audit::one_stop_at_a_time;
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::load::Load;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::witness::Witness;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_become_three_and_no_client_sees_it() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-leaves", 5).await.unwrap();
    // The first victim leads: it has to hand over before it drains.
    let first_victim = store.let_lead("db-4").await.unwrap();
    let witness = Witness::start(&store);
    let load = Load::start(&store).await.unwrap();

    store.scale(3).await.unwrap();
    let status = store.settled(3).await.unwrap();
    let ordinals: Vec<i32> = status.members.iter().map(|member| member.ordinal).collect();
    assert_eq!(ordinals, [0, 1, 2]);

    let outcome = load.stop().await.unwrap();
    let seen = witness.stop().await.unwrap();
    outcome.verify(&store).await.unwrap();
    outcome.untroubled().unwrap();
    seen.never_two_silent().unwrap();
    seen.one_change_at_a_time().unwrap();
    seen.leadership_left_before(first_victim).unwrap();
    assert_eq!(one_stop_at_a_time(&store.audit.requests().unwrap()).unwrap(), 2);
}
