//! The strategies of field tables, arrays and their values.

use alloc::vec;

use bytes::Bytes;
use proptest::{
    arbitrary::{Arbitrary, any},
    collection::vec,
    num::{f32, f64},
    prop_oneof,
    strategy::{BoxedStrategy, Just, Strategy},
};

use crate::wire::{Decimal, FieldArray, FieldTable, FieldValue, LongStr, ShortStr, Timestamp};

/// The number of levels of tables and arrays in a value.
const DEPTH: u32 = 3;

/// A value without others in it.
fn leaf() -> BoxedStrategy<FieldValue> {
    prop_oneof![
        any::<bool>().prop_map(FieldValue::Bool),
        any::<i8>().prop_map(FieldValue::I8),
        any::<u8>().prop_map(FieldValue::U8),
        any::<i16>().prop_map(FieldValue::I16),
        any::<u16>().prop_map(FieldValue::U16),
        any::<i32>().prop_map(FieldValue::I32),
        any::<u32>().prop_map(FieldValue::U32),
        any::<i64>().prop_map(FieldValue::I64),
        any::<i64>().prop_map(FieldValue::I64Alias),
        floats(),
        any::<Decimal>().prop_map(FieldValue::Decimal),
        any::<LongStr>().prop_map(FieldValue::LongStr),
        any::<Timestamp>().prop_map(FieldValue::Timestamp),
        vec(any::<u8>(), 0..40).prop_map(|bytes| FieldValue::Bytes(Bytes::from(bytes))),
        Just(FieldValue::Void),
    ]
    .boxed()
}

/// Numbers that equal themselves: without NaN.
fn floats() -> BoxedStrategy<FieldValue> {
    let singles = f32::POSITIVE | f32::NEGATIVE | f32::ZERO | f32::SUBNORMAL | f32::INFINITE;
    let doubles = f64::POSITIVE | f64::NEGATIVE | f64::ZERO | f64::SUBNORMAL | f64::INFINITE;
    prop_oneof![
        (singles | f32::NORMAL).prop_map(FieldValue::F32),
        (doubles | f64::NORMAL).prop_map(FieldValue::F64),
    ]
    .boxed()
}

/// Any type of value, with at most three levels of tables and arrays below it.
impl Arbitrary for FieldValue {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        leaf()
            .prop_recursive(DEPTH, 16, 4, |inner| {
                let fields = vec((any::<ShortStr>(), inner.clone()), 0..4);
                prop_oneof![
                    vec(inner, 0..4).prop_map(|values| Self::Array(values.into())),
                    fields.prop_map(|fields| Self::Table(fields.into_iter().collect())),
                ]
            })
            .boxed()
    }
}

/// Up to five values.
impl Arbitrary for FieldArray {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        vec(any::<FieldValue>(), 0..6).prop_map(Self::from).boxed()
    }
}

/// Up to five fields. A name may occur twice.
impl Arbitrary for FieldTable {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        vec(any::<(ShortStr, FieldValue)>(), 0..6)
            .prop_map(Self::from_iter)
            .boxed()
    }
}
