//! Which operation of unknown outcome made which revision: a maximum matching between the two.

/// `edges[r]` lists the operations that could have made revision `r`. Gives for each revision the operation that did, such that
/// none made two and as many revisions as possible have one (Kuhn's augmenting paths).
pub(super) fn matching(edges: &[Vec<usize>], operations: usize) -> Vec<Option<usize>> {
    let mut made_by: Vec<Option<usize>> = vec![None; operations];
    for revision in 0..edges.len() {
        let mut tried = vec![false; operations];
        augment(revision, edges, &mut made_by, &mut tried);
    }
    let mut explained = vec![None; edges.len()];
    for (operation, revision) in made_by.into_iter().enumerate() {
        if let Some(revision) = revision {
            explained[revision] = Some(operation);
        }
    }
    explained
}

fn augment(
    revision: usize,
    edges: &[Vec<usize>],
    made_by: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for &operation in &edges[revision] {
        if std::mem::replace(&mut tried[operation], true) {
            continue;
        }
        let free = match made_by[operation] {
            None => true,
            Some(other) => augment(other, edges, made_by, tried),
        };
        if free {
            made_by[operation] = Some(revision);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greedy_choice_is_undone_where_it_is_in_the_way() {
        let edges = [vec![0, 1], vec![0], vec![1, 2]];
        assert_eq!(matching(&edges, 3), [Some(1), Some(0), Some(2)]);
    }

    #[test]
    fn no_operation_makes_two_revisions() {
        assert_eq!(matching(&[vec![0], vec![0]], 1), [Some(0), None]);
    }
}
