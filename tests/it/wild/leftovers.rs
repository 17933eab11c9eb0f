//! What training programs save beside the weights.
