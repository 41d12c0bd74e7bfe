use super::*;

#[test]
fn padding_is_skipped_and_positions_count_real_tokens() {
    let new = NewTokens::left_padded(4, &[0, 3]).unwrap();
    let plan = AppendPlan::new(&new, &[10, 20]);
    assert_eq!(plan.positions(), [10, 11, 12, 13, 0, 0, 0, 20]);
    assert_eq!(plan.lens_after(), [14, 21]);
    assert_eq!(plan.uniform(), None);
}

#[test]
fn a_column_stands_behind_those_before_it() {
    let plan = AppendPlan::new(&NewTokens::left_padded(3, &[0, 2]).unwrap(), &[10, 20]);
    let places = |t| plan.column(t).as_slice().iter().map(|a| (a.skip, a.take, a.at)).collect::<Vec<_>>();
    assert_eq!(places(0), [(0, 1, 10), (1, 0, 20)]);
    assert_eq!(places(2), [(0, 1, 12), (0, 1, 20)]);
}

#[test]
fn a_part_of_the_positions_keeps_its_columns() {
    let plan = AppendPlan::new(&NewTokens::left_padded(6, &[0, 2]).unwrap(), &[10, 20]);
    let places =
        |range| plan.within(range).as_slice().iter().map(|a| (a.skip, a.take, a.at)).collect::<Vec<_>>();
    assert_eq!(places(0..100), [(0, 6, 10), (2, 4, 20)]);
    assert_eq!(places(12..14)[0], (2, 2, 12));
    assert_eq!(places(12..14)[1].1, 0);
    assert_eq!(places(15..22), [(5, 1, 15), (2, 2, 20)]);
    assert_eq!(places(0..5).iter().map(|place| place.1).sum::<usize>(), 0);
}

#[test]
fn columns_cut_padding_and_tails() {
    let new = NewTokens::left_padded(6, &[0, 4]).unwrap();
    assert_eq!(new.columns(0, 3).valid(), [0..3, 3..3]);
    assert_eq!(new.columns(3, 3).valid(), [0..3, 1..3]);
    let ragged = NewTokens::ragged(6, &[6, 2]).unwrap();
    assert_eq!(ragged.columns(0, 3).valid(), [0..3, 0..2]);
    assert_eq!(ragged.columns(3, 3).valid(), [0..3, 0..0]);
}

#[test]
fn a_window_moves_the_start() {
    let spans = Spans::from_lens(&[3, 9], Some(4));
    assert_eq!(spans.as_slice(), [Span { slot: 0, start: 0, end: 3 }, Span { slot: 1, start: 5, end: 9 }]);
    assert_eq!((spans.max_end(), spans.max_len(), spans.is_full()), (9, 4, false));
}

#[test]
fn a_batch_holds_any_slots_in_any_order() {
    let new = NewTokens::ragged(2, &[2, 1]).unwrap().in_slots(&[3, 1]).unwrap();
    let plan = AppendPlan::new(&new, &[10, 11, 12, 13]);
    assert_eq!((plan.lens_after(), plan.is_rectangle(2)), (vec![15, 12], false));
    assert_eq!(plan.place(0, 64), Place { first: 192, capacity: 64 });
    let places = [(0, 5), (5, 20), (25, 20), (45, 40)].map(|(first, capacity)| Place { first, capacity });
    let located = plan.located(&places);
    assert_eq!([located.place(0, 64), located.column(0).place(1, 64)], [places[3], places[1]]);
    let alone = located.rows(&[1]).alone(0);
    assert!(alone.is_rectangle(1) && alone.as_slice()[0].at == 11);
    for slots in [&[0][..], &[1, 1]] {
        assert!(NewTokens::all(2, 1).in_slots(slots).is_err());
    }
}

#[test]
fn ranges_outside_of_the_batch_are_refused() {
    assert!(NewTokens::left_padded(4, &[5]).is_err());
    assert!(NewTokens::ragged(4, &[5]).is_err());
}
