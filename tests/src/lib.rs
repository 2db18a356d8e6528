//! Corpus builder, oracles and damage generator.
