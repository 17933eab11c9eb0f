//! Configs that give the same shapes another meaning.
