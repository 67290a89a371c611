//! Fear: a change of size loses a write, skips the learner, or takes two members at once.

use quorate_e2e_cluster::audit::{no_pod_is_taken, one_stop_at_a_time};
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::limits::SCALED;
use quorate_e2e_cluster::load::Load;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::wait::until;
use quorate_e2e_cluster::witness::Witness;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_three_five_three_one_under_load_and_a_reversal() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-scale", 1).await.unwrap();
    let witness = Witness::start(&store);
    let load = Load::start(&store).await.unwrap();

    store.scale(3).await.unwrap();
    store.settled(3).await.unwrap();
    store.scale(5).await.unwrap();
    store.settled(5).await.unwrap();
    // Five members on three nodes: two of them share one, and it is said.
    assert!(turn.bed.nodes().len() < 5, "the bed has a node for each member");
    store.told("PlacementWarning", "True", "VotersShareNode").await.unwrap();

    // The member of the highest ordinal leaves first: put leadership onto it.
    let first_victim = store.let_lead("db-4").await.unwrap();
    store.scale(3).await.unwrap();
    store.settled(3).await.unwrap();

    // The target turns round while a member is joining.
    store.scale(5).await.unwrap();
    let joiner = until("a learner", SCALED, async || {
        let members = store.members().await.map_err(|error| format!("{error:#}"))?;
        let learner = members.iter().find(|member| member.is_learner);
        learner.map(|member| member.id).ok_or_else(|| format!("{} members", members.len()))
    });
    let joiner = joiner.await.unwrap();
    store.scale(3).await.unwrap();
    store.settled(3).await.unwrap();

    let second_victim = store.let_lead("db-2").await.unwrap();
    store.scale(1).await.unwrap();
    let last = store.settled(1).await.unwrap();

    let outcome = load.stop().await.unwrap();
    let seen = witness.stop().await.unwrap();
    outcome.verify(&store).await.unwrap();
    outcome.heavy().unwrap();

    assert!(seen.joiners_learned_first().unwrap() >= 5, "four joined, and one that turned back");
    seen.one_change_at_a_time().unwrap();
    seen.never_two_silent().unwrap();
    seen.one_cluster().unwrap();
    seen.leadership_left_before(first_victim).unwrap();
    seen.leadership_left_before(second_victim).unwrap();
    let turned_back = seen.samples.iter().filter_map(|sample| sample.seats.get(&joiner));
    assert!(turned_back.clone().count() > 0, "the witness saw the member that turned back");

    let requests = store.audit.requests().unwrap();
    no_pod_is_taken(&requests).unwrap();
    assert!(one_stop_at_a_time(&requests).unwrap() >= 5, "four left, and one that turned back");
    assert!(seen.claims_outlive_members(&requests).unwrap() >= 5);
    assert_eq!(requests.iter().filter(|it| it.made("jobs")).count(), 1, "formed once");
    let ordinals: Vec<i32> = last.members.iter().map(|member| member.ordinal).collect();
    assert_eq!(ordinals, [0], "who came last went first");
    assert!(last.next_ordinal >= Some(6), "ordinals are never used again: {:?}", last.next_ordinal);
}
