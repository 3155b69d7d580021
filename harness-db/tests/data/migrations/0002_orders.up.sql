create table orders (
    id bigserial primary key,
    user_id bigint not null references users (id),
    total_cents bigint not null
);
create index orders_by_user on orders (user_id);
