drop table pattern_vectors;
drop table patterns;
