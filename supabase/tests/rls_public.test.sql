-- What: who may do what in schema public, tried for each role on rows that are made here and rolled back.
-- Why: for `supabase test db`. Generated from tests/rls/matrix.ts by `npm run rls -- --write`: change that.
-- Who: whoever may create pgTAP and write auth.users, as `postgres` of a local project may.

begin;

create extension if not exists pgtap with schema extensions;

set local search_path = public, extensions;

select plan(83);

-- Three people, and rows that are theirs. What is there already stays, and is not looked at.
insert into auth.users (id, aud, role)
values
    ('00000000-0000-4000-8000-00000000000a', 'authenticated', 'authenticated'),
    ('00000000-0000-4000-8000-00000000000b', 'authenticated', 'authenticated'),
    ('00000000-0000-4000-8000-00000000000c', 'authenticated', 'authenticated')
on conflict do nothing;

insert into public.products (id, sku, name, price_minor, currency, stock, deleted_at)
values
    ('00000000-0000-4000-8000-0000000000a1', 'RLS-ROPE-10', 'Rope', 2450, 'EUR', 1000, default),
    ('00000000-0000-4000-8000-0000000000a2', 'RLS-OLD-1', 'Old lamp', 1, 'EUR', 0, '2026-01-01T00:00:00Z')
on conflict do nothing;

insert into public.orders (id, user_id, status, total_minor, currency, deleted_at)
values
    ('00000000-0000-4000-8000-0000000000b1', '00000000-0000-4000-8000-00000000000a', 'paid', 2450, 'EUR', null),
    ('00000000-0000-4000-8000-0000000000b2', '00000000-0000-4000-8000-00000000000a', 'paid', 2450, 'EUR', '2026-01-01T00:00:00Z'),
    ('00000000-0000-4000-8000-0000000000b3', '00000000-0000-4000-8000-00000000000b', 'paid', 2450, 'EUR', null),
    ('00000000-0000-4000-8000-0000000000b4', null, 'paid', 2450, 'EUR', null),
    ('00000000-0000-4000-8000-0000000000b5', null, 'paid', 2450, 'EUR', null)
on conflict do nothing;

insert into public.order_items (order_id, product_id, sku, name, quantity, unit_price_minor)
values
    ('00000000-0000-4000-8000-0000000000b1', '00000000-0000-4000-8000-0000000000a1', 'RLS-ROPE-10', 'Rope', 1, 2450),
    ('00000000-0000-4000-8000-0000000000b2', '00000000-0000-4000-8000-0000000000a1', 'RLS-ROPE-10', 'Rope', 1, 2450),
    ('00000000-0000-4000-8000-0000000000b3', '00000000-0000-4000-8000-0000000000a1', 'RLS-ROPE-10', 'Rope', 1, 2450),
    ('00000000-0000-4000-8000-0000000000b4', '00000000-0000-4000-8000-0000000000a1', 'RLS-ROPE-10', 'Rope', 1, 2450)
on conflict do nothing;

insert into public.payments (id, order_id, provider_charge_id, status, amount_minor, currency)
values
    ('00000000-0000-4000-8000-0000000000c1', '00000000-0000-4000-8000-0000000000b1', 'ch_00000000-0000-4000-8000-0000000000c1', 'succeeded', 2450, 'EUR'),
    ('00000000-0000-4000-8000-0000000000c2', '00000000-0000-4000-8000-0000000000b2', 'ch_00000000-0000-4000-8000-0000000000c2', 'succeeded', 2450, 'EUR'),
    ('00000000-0000-4000-8000-0000000000c3', '00000000-0000-4000-8000-0000000000b3', 'ch_00000000-0000-4000-8000-0000000000c3', 'succeeded', 2450, 'EUR'),
    ('00000000-0000-4000-8000-0000000000c4', '00000000-0000-4000-8000-0000000000b4', 'ch_00000000-0000-4000-8000-0000000000c4', 'succeeded', 2450, 'EUR')
on conflict do nothing;

-- The names by which the assertions call these rows.
create temporary table fixture (
    position integer generated always as identity,
    relation text not null,
    key text not null,
    name text not null
) on commit drop;

insert into fixture (relation, key, name)
values
    ('public.products', '00000000-0000-4000-8000-0000000000a1', 'row'),
    ('public.products', '00000000-0000-4000-8000-0000000000a2', 'row, deleted'),
    ('public.products', '00000000-0000-4000-8000-0000000000ff', 'fresh'),
    ('public.orders', '00000000-0000-4000-8000-0000000000b1', 'owner'),
    ('public.orders', '00000000-0000-4000-8000-0000000000b2', 'owner, deleted'),
    ('public.orders', '00000000-0000-4000-8000-0000000000b3', 'other'),
    ('public.orders', '00000000-0000-4000-8000-0000000000b4', 'nobody'),
    ('public.orders', '00000000-0000-4000-8000-0000000000b5', 'nobody 2'),
    ('public.orders', '00000000-0000-4000-8000-0000000000ff', 'fresh'),
    ('public.order_items', '00000000-0000-4000-8000-0000000000b1 00000000-0000-4000-8000-0000000000a1', 'owner'),
    ('public.order_items', '00000000-0000-4000-8000-0000000000b2 00000000-0000-4000-8000-0000000000a1', 'owner, deleted'),
    ('public.order_items', '00000000-0000-4000-8000-0000000000b3 00000000-0000-4000-8000-0000000000a1', 'other'),
    ('public.order_items', '00000000-0000-4000-8000-0000000000b4 00000000-0000-4000-8000-0000000000a1', 'nobody'),
    ('public.order_items', '00000000-0000-4000-8000-0000000000b1 00000000-0000-4000-8000-0000000000a2', 'fresh'),
    ('public.payments', '00000000-0000-4000-8000-0000000000c1', 'owner'),
    ('public.payments', '00000000-0000-4000-8000-0000000000c2', 'owner, deleted'),
    ('public.payments', '00000000-0000-4000-8000-0000000000c3', 'other'),
    ('public.payments', '00000000-0000-4000-8000-0000000000c4', 'nobody'),
    ('public.payments', '00000000-0000-4000-8000-0000000000ff', 'fresh');

-- What is tried on each table. Nothing limits a statement but the rights of whoever runs it.
create temporary table attempts (
    relation text primary key,
    found text not null,
    inserting text not null,
    updating text not null,
    updated text not null,
    before_delete text
) on commit drop;

insert into attempts (relation, found, inserting, updating, updated, before_delete)
values
    (
        'public.products',
        $q$ select array_agg(id::text) from public.products $q$,
        $q$ insert into public.products (id, sku, name, price_minor, currency, stock) values ('00000000-0000-4000-8000-0000000000ff', 'RLS-FRESH-1', 'Rope', 2450, 'EUR', 1000) $q$,
        $q$ update public.products set stock = 7 $q$,
        $q$ select array_agg(id::text) from public.products where stock is not distinct from 7 $q$,
        'delete from public.order_items'
    ),
    (
        'public.orders',
        $q$ select array_agg(id::text) from public.orders $q$,
        $q$ insert into public.orders (id, user_id, status, total_minor, currency, deleted_at) values ('00000000-0000-4000-8000-0000000000ff', '00000000-0000-4000-8000-00000000000a', 'paid', 2450, 'EUR', null) $q$,
        $q$ update public.orders set total_minor = 1 $q$,
        $q$ select array_agg(id::text) from public.orders where total_minor is not distinct from 1 $q$,
        null
    ),
    (
        'public.order_items',
        $q$ select array_agg(order_id::text || ' ' || product_id::text) from public.order_items $q$,
        $q$ insert into public.order_items (order_id, product_id, sku, name, quantity, unit_price_minor) values ('00000000-0000-4000-8000-0000000000b1', '00000000-0000-4000-8000-0000000000a2', 'RLS-ROPE-10', 'Rope', 1, 2450) $q$,
        $q$ update public.order_items set quantity = 9 $q$,
        $q$ select array_agg(order_id::text || ' ' || product_id::text) from public.order_items where quantity is not distinct from 9 $q$,
        null
    ),
    (
        'public.payments',
        $q$ select array_agg(id::text) from public.payments $q$,
        $q$ insert into public.payments (id, order_id, provider_charge_id, status, amount_minor, currency) values ('00000000-0000-4000-8000-0000000000ff', '00000000-0000-4000-8000-0000000000b5', 'ch_fresh', 'succeeded', 2450, 'EUR') $q$,
        $q$ update public.payments set amount_minor = 1 $q$,
        $q$ select array_agg(id::text) from public.payments where amount_minor is not distinct from 1 $q$,
        null
    );

-- Takes on the role and the claims of somebody, until the block around it is taken back.
create function pg_temp.become(p_who text)
returns void
language plpgsql
as $$
declare
    v_role text := case when p_who in ('anon', 'service_role') then p_who else 'authenticated' end;
    v_claims jsonb := case p_who
        when 'owner' then '{"sub": "00000000-0000-4000-8000-00000000000a"}'
        when 'other' then '{"sub": "00000000-0000-4000-8000-00000000000b"}'
        when 'admin' then '{"sub": "00000000-0000-4000-8000-00000000000c", "app_metadata": {"role": "admin"}}'
        else '{}'
    end::jsonb;
begin
    perform set_config('request.jwt.claims', (v_claims || jsonb_build_object('role', v_role))::text, true);
    perform set_config('role', v_role, true);
end;
$$;

-- Runs a statement as somebody, and takes back what it did.
create function pg_temp.run_as(p_who text, p_statement text)
returns void
language plpgsql
as $$
begin
    perform pg_temp.become(p_who);
    execute p_statement;
    raise exception using errcode = 'UNDO1';
exception
    when sqlstate 'UNDO1' then null;
end;
$$;

-- Tries a command as somebody and takes it back: the names of the rows that are seen, or have changed.
create function pg_temp.reach(p_who text, p_command text, p_relation text, p_inserting text default null)
returns text[]
language plpgsql
as $$
declare
    v_self text := current_user;
    v_attempts attempts;
    v_keys text[];
begin
    select * into strict v_attempts from pg_temp.attempts where relation = p_relation;
    begin
        if p_command = 'delete' and v_attempts.before_delete is not null then
            execute v_attempts.before_delete;
        end if;
        perform pg_temp.become(p_who);
        case p_command
            when 'select' then execute v_attempts.found into v_keys;
            when 'insert' then execute coalesce(p_inserting, v_attempts.inserting);
            when 'update' then execute v_attempts.updating;
            when 'delete' then execute 'delete from ' || p_relation;
        end case;
        -- What a write did is asked with every right: who may write need not be able to read.
        perform set_config('role', v_self, true);
        case p_command
            when 'select' then null;
            when 'update' then execute v_attempts.updated into v_keys;
            else execute v_attempts.found into v_keys;
        end case;
        raise exception using errcode = 'UNDO1';
    exception
        when sqlstate 'UNDO1' then null;
    end;
    return array(
        select f.name from pg_temp.fixture as f
        where f.relation = p_relation
        and (f.name = 'fresh') = (p_command = 'insert')
        and (f.key = any (coalesce(v_keys, '{}'))) = (p_command <> 'delete')
        order by f.position
    );
end;
$$;

select is_empty(
    $q$ select c.oid::regclass from pg_class as c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity $q$,
    'row level security is on for every table of schema public'
);

select is_empty(
    $q$ select c.relname from pg_class as c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
    and not c.relispartition
    and 'public.' || c.relname <> all (array[
        'public.products',
        'public.orders',
        'public.order_items',
        'public.payments'
    ]) $q$,
    'the declaration names every table and view of schema public'
);

select is_empty(
    $q$ select p.oid::regprocedure from pg_proc as p
    where p.pronamespace = 'public'::regnamespace
    and 'public.' || regexp_replace(p.oid::regprocedure::text, '^public\.', '') <> all ('{}'::text[]) $q$,
    'the declaration names every function of schema public'
);

-- public.products: Anybody reads what is sold; admins also what no longer is. Nobody writes through the API.
select is(pg_temp.reach('anon', 'select', 'public.products'), array['row'], 'anon reads every row that is not soft-deleted of public.products');
select is(pg_temp.reach('owner', 'select', 'public.products'), array['row'], 'owner reads every row that is not soft-deleted of public.products');
select is(pg_temp.reach('other', 'select', 'public.products'), array['row'], 'other reads every row that is not soft-deleted of public.products');
select is(pg_temp.reach('admin', 'select', 'public.products'), array['row', 'row, deleted'], 'admin reads every row of public.products');
select is(pg_temp.reach('service_role', 'select', 'public.products'), array['row', 'row, deleted'], 'service_role reads every row of public.products');
select throws_ok($q$ select pg_temp.reach('anon', 'insert', 'public.products') $q$, '42501', null, 'anon may not insert into public.products');
select throws_ok($q$ select pg_temp.reach('owner', 'insert', 'public.products') $q$, '42501', null, 'owner may not insert into public.products');
select throws_ok($q$ select pg_temp.reach('other', 'insert', 'public.products') $q$, '42501', null, 'other may not insert into public.products');
select throws_ok($q$ select pg_temp.reach('admin', 'insert', 'public.products') $q$, '42501', null, 'admin may not insert into public.products');
select is(pg_temp.reach('service_role', 'insert', 'public.products'), array['fresh'], 'service_role inserts rows into public.products');
select throws_ok($q$ select pg_temp.reach('anon', 'update', 'public.products') $q$, '42501', null, 'anon may not update public.products');
select throws_ok($q$ select pg_temp.reach('owner', 'update', 'public.products') $q$, '42501', null, 'owner may not update public.products');
select throws_ok($q$ select pg_temp.reach('other', 'update', 'public.products') $q$, '42501', null, 'other may not update public.products');
select throws_ok($q$ select pg_temp.reach('admin', 'update', 'public.products') $q$, '42501', null, 'admin may not update public.products');
select is(pg_temp.reach('service_role', 'update', 'public.products'), array['row', 'row, deleted'], 'service_role updates every row of public.products');
select throws_ok($q$ select pg_temp.reach('anon', 'delete', 'public.products') $q$, '42501', null, 'anon may not delete from public.products');
select throws_ok($q$ select pg_temp.reach('owner', 'delete', 'public.products') $q$, '42501', null, 'owner may not delete from public.products');
select throws_ok($q$ select pg_temp.reach('other', 'delete', 'public.products') $q$, '42501', null, 'other may not delete from public.products');
select throws_ok($q$ select pg_temp.reach('admin', 'delete', 'public.products') $q$, '42501', null, 'admin may not delete from public.products');
select is(pg_temp.reach('service_role', 'delete', 'public.products'), array['row', 'row, deleted'], 'service_role deletes every row of public.products');

-- public.orders: Customers read their own orders, admins all. Orders change by functions of private alone.
select throws_ok($q$ select pg_temp.reach('anon', 'select', 'public.orders') $q$, '42501', null, 'anon may not read public.orders');
select is(pg_temp.reach('owner', 'select', 'public.orders'), array['owner'], 'owner reads own rows alone of public.orders');
select is(pg_temp.reach('other', 'select', 'public.orders'), array['other'], 'other reads own rows alone of public.orders');
select is(pg_temp.reach('admin', 'select', 'public.orders'), array['owner', 'owner, deleted', 'other', 'nobody', 'nobody 2'], 'admin reads every row of public.orders');
select is(pg_temp.reach('service_role', 'select', 'public.orders'), array['owner', 'owner, deleted', 'other', 'nobody', 'nobody 2'], 'service_role reads every row of public.orders');
select throws_ok($q$ select pg_temp.reach('anon', 'insert', 'public.orders') $q$, '42501', null, 'anon may not insert into public.orders');
select throws_ok($q$ select pg_temp.reach('owner', 'insert', 'public.orders') $q$, '42501', null, 'owner may not insert into public.orders');
select throws_ok($q$ select pg_temp.reach('other', 'insert', 'public.orders') $q$, '42501', null, 'other may not insert into public.orders');
select throws_ok($q$ select pg_temp.reach('admin', 'insert', 'public.orders') $q$, '42501', null, 'admin may not insert into public.orders');
select is(pg_temp.reach('service_role', 'insert', 'public.orders'), array['fresh'], 'service_role inserts rows into public.orders');
select throws_ok($q$ select pg_temp.reach('anon', 'update', 'public.orders') $q$, '42501', null, 'anon may not update public.orders');
select throws_ok($q$ select pg_temp.reach('owner', 'update', 'public.orders') $q$, '42501', null, 'owner may not update public.orders');
select throws_ok($q$ select pg_temp.reach('other', 'update', 'public.orders') $q$, '42501', null, 'other may not update public.orders');
select throws_ok($q$ select pg_temp.reach('admin', 'update', 'public.orders') $q$, '42501', null, 'admin may not update public.orders');
select is(pg_temp.reach('service_role', 'update', 'public.orders'), array['owner', 'owner, deleted', 'other', 'nobody', 'nobody 2'], 'service_role updates every row of public.orders');
select throws_ok($q$ select pg_temp.reach('anon', 'delete', 'public.orders') $q$, '42501', null, 'anon may not delete from public.orders');
select throws_ok($q$ select pg_temp.reach('owner', 'delete', 'public.orders') $q$, '42501', null, 'owner may not delete from public.orders');
select throws_ok($q$ select pg_temp.reach('other', 'delete', 'public.orders') $q$, '42501', null, 'other may not delete from public.orders');
select throws_ok($q$ select pg_temp.reach('admin', 'delete', 'public.orders') $q$, '42501', null, 'admin may not delete from public.orders');
select is(pg_temp.reach('service_role', 'delete', 'public.orders'), array['owner', 'owner, deleted', 'other', 'nobody', 'nobody 2'], 'service_role deletes every row of public.orders');

-- public.order_items: Read by whoever reads their order.
select throws_ok($q$ select pg_temp.reach('anon', 'select', 'public.order_items') $q$, '42501', null, 'anon may not read public.order_items');
select is(pg_temp.reach('owner', 'select', 'public.order_items'), array['owner'], 'owner reads own rows alone of public.order_items');
select is(pg_temp.reach('other', 'select', 'public.order_items'), array['other'], 'other reads own rows alone of public.order_items');
select is(pg_temp.reach('admin', 'select', 'public.order_items'), array['owner', 'owner, deleted', 'other', 'nobody'], 'admin reads every row of public.order_items');
select is(pg_temp.reach('service_role', 'select', 'public.order_items'), array['owner', 'owner, deleted', 'other', 'nobody'], 'service_role reads every row of public.order_items');
select throws_ok($q$ select pg_temp.reach('anon', 'insert', 'public.order_items') $q$, '42501', null, 'anon may not insert into public.order_items');
select throws_ok($q$ select pg_temp.reach('owner', 'insert', 'public.order_items') $q$, '42501', null, 'owner may not insert into public.order_items');
select throws_ok($q$ select pg_temp.reach('other', 'insert', 'public.order_items') $q$, '42501', null, 'other may not insert into public.order_items');
select throws_ok($q$ select pg_temp.reach('admin', 'insert', 'public.order_items') $q$, '42501', null, 'admin may not insert into public.order_items');
select is(pg_temp.reach('service_role', 'insert', 'public.order_items'), array['fresh'], 'service_role inserts rows into public.order_items');
select throws_ok($q$ select pg_temp.reach('anon', 'update', 'public.order_items') $q$, '42501', null, 'anon may not update public.order_items');
select throws_ok($q$ select pg_temp.reach('owner', 'update', 'public.order_items') $q$, '42501', null, 'owner may not update public.order_items');
select throws_ok($q$ select pg_temp.reach('other', 'update', 'public.order_items') $q$, '42501', null, 'other may not update public.order_items');
select throws_ok($q$ select pg_temp.reach('admin', 'update', 'public.order_items') $q$, '42501', null, 'admin may not update public.order_items');
select is(pg_temp.reach('service_role', 'update', 'public.order_items'), array['owner', 'owner, deleted', 'other', 'nobody'], 'service_role updates every row of public.order_items');
select throws_ok($q$ select pg_temp.reach('anon', 'delete', 'public.order_items') $q$, '42501', null, 'anon may not delete from public.order_items');
select throws_ok($q$ select pg_temp.reach('owner', 'delete', 'public.order_items') $q$, '42501', null, 'owner may not delete from public.order_items');
select throws_ok($q$ select pg_temp.reach('other', 'delete', 'public.order_items') $q$, '42501', null, 'other may not delete from public.order_items');
select throws_ok($q$ select pg_temp.reach('admin', 'delete', 'public.order_items') $q$, '42501', null, 'admin may not delete from public.order_items');
select is(pg_temp.reach('service_role', 'delete', 'public.order_items'), array['owner', 'owner, deleted', 'other', 'nobody'], 'service_role deletes every row of public.order_items');

-- public.payments: Read by whoever reads their order.
select throws_ok($q$ select pg_temp.reach('anon', 'select', 'public.payments') $q$, '42501', null, 'anon may not read public.payments');
select is(pg_temp.reach('owner', 'select', 'public.payments'), array['owner'], 'owner reads own rows alone of public.payments');
select is(pg_temp.reach('other', 'select', 'public.payments'), array['other'], 'other reads own rows alone of public.payments');
select is(pg_temp.reach('admin', 'select', 'public.payments'), array['owner', 'owner, deleted', 'other', 'nobody'], 'admin reads every row of public.payments');
select is(pg_temp.reach('service_role', 'select', 'public.payments'), array['owner', 'owner, deleted', 'other', 'nobody'], 'service_role reads every row of public.payments');
select throws_ok($q$ select pg_temp.reach('anon', 'insert', 'public.payments') $q$, '42501', null, 'anon may not insert into public.payments');
select throws_ok($q$ select pg_temp.reach('owner', 'insert', 'public.payments') $q$, '42501', null, 'owner may not insert into public.payments');
select throws_ok($q$ select pg_temp.reach('other', 'insert', 'public.payments') $q$, '42501', null, 'other may not insert into public.payments');
select throws_ok($q$ select pg_temp.reach('admin', 'insert', 'public.payments') $q$, '42501', null, 'admin may not insert into public.payments');
select is(pg_temp.reach('service_role', 'insert', 'public.payments'), array['fresh'], 'service_role inserts rows into public.payments');
select throws_ok($q$ select pg_temp.reach('anon', 'update', 'public.payments') $q$, '42501', null, 'anon may not update public.payments');
select throws_ok($q$ select pg_temp.reach('owner', 'update', 'public.payments') $q$, '42501', null, 'owner may not update public.payments');
select throws_ok($q$ select pg_temp.reach('other', 'update', 'public.payments') $q$, '42501', null, 'other may not update public.payments');
select throws_ok($q$ select pg_temp.reach('admin', 'update', 'public.payments') $q$, '42501', null, 'admin may not update public.payments');
select is(pg_temp.reach('service_role', 'update', 'public.payments'), array['owner', 'owner, deleted', 'other', 'nobody'], 'service_role updates every row of public.payments');
select throws_ok($q$ select pg_temp.reach('anon', 'delete', 'public.payments') $q$, '42501', null, 'anon may not delete from public.payments');
select throws_ok($q$ select pg_temp.reach('owner', 'delete', 'public.payments') $q$, '42501', null, 'owner may not delete from public.payments');
select throws_ok($q$ select pg_temp.reach('other', 'delete', 'public.payments') $q$, '42501', null, 'other may not delete from public.payments');
select throws_ok($q$ select pg_temp.reach('admin', 'delete', 'public.payments') $q$, '42501', null, 'admin may not delete from public.payments');
select is(pg_temp.reach('service_role', 'delete', 'public.payments'), array['owner', 'owner, deleted', 'other', 'nobody'], 'service_role deletes every row of public.payments');

select * from finish();

rollback;
