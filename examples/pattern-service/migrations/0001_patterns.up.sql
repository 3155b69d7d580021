-- The pattern library and its vectors. The index on the vectors is built by the seed: its lists are centres of the rows.
create table if not exists patterns (
    name text primary key,
    class text not null,
    body text not null,
    seed text not null,
    version bigint not null default 1
);
create table if not exists pattern_vectors (
    id bigint generated always as identity primary key,
    pattern text not null,
    class text not null,
    phrase text not null,
    embedding vector(64) not null
);
