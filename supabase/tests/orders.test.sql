-- What: the rules of the shop, in the words of its tables and functions: who reads, who writes, on whose orders.
-- Why: an example to write your own tests after, run by `supabase test db` and by `npm run test:rls`.
-- Who: whoever may create pgTAP and write auth.users, as `postgres` of a local project may.

begin;

create extension if not exists pgtap with schema extensions;

set local search_path = public, extensions;

select plan(45);

-- Two customers and an admin, a product, and an order of Ada's. All of it is rolled back.

insert into auth.users (id, aud, role)
values
    ('10000000-0000-4000-8000-00000000000a', 'authenticated', 'authenticated'),
    ('10000000-0000-4000-8000-00000000000b', 'authenticated', 'authenticated'),
    ('10000000-0000-4000-8000-00000000000c', 'authenticated', 'authenticated');

insert into public.products (id, sku, name, price_minor, currency, stock)
values ('10000000-0000-4000-8000-000000000001', 'PGTAP-BUOY', 'Mooring buoy', 4200, 'EUR', 10);

-- Calls a function, or runs a query of one value, as PostgREST would for this caller. What it changes stays; an error
-- takes it back, and the role with it.
create function pg_temp.acting_as(p_who text, p_statement text)
returns jsonb
language plpgsql
as $$
declare
    v_self text := current_user;
    v_role text := case when p_who in ('anon', 'service_role') then p_who else 'authenticated' end;
    v_claims jsonb := case p_who
        when 'ada' then '{"sub": "10000000-0000-4000-8000-00000000000a"}'
        when 'grace' then '{"sub": "10000000-0000-4000-8000-00000000000b"}'
        when 'an admin' then
            '{"sub": "10000000-0000-4000-8000-00000000000c", "app_metadata": {"role": "admin"}}'
        when 'a pretended admin' then
            '{"sub": "10000000-0000-4000-8000-00000000000b", "user_metadata": {"role": "admin"}}'
        else '{}'
    end::jsonb;
    v_result jsonb;
begin
    perform set_config('request.jwt.claims', (v_claims || jsonb_build_object('role', v_role))::text, true);
    perform set_config('role', v_role, true);
    execute format('select to_jsonb(result.value) from (%s) as result (value)', p_statement) into v_result;
    perform set_config('role', v_self, true);
    return v_result;
end;
$$;

-- Ada's order with its items and its payment, and how many buoys are left.
create function pg_temp.the_books()
returns table (status text, is_deleted boolean, payment text, refund text, quantity integer, stock integer)
language sql
as $$
    select o.status, o.deleted_at is not null, y.status, y.provider_refund_id, i.quantity, p.stock
    from public.orders as o
    join public.payments as y on y.order_id = o.id
    join public.order_items as i on i.order_id = o.id
    join public.products as p on p.id = i.product_id
    where o.id = '10000000-0000-4000-8000-0000000000aa'
    and o.user_id = '10000000-0000-4000-8000-00000000000a'
$$;


-- Access, as it is stated.

select policies_are('public', 'products', array['Anybody may see what is sold']);
select policies_are('public', 'orders', array['Customers see their own orders, admins see all']);
select policies_are('public', 'order_items', array['Items are seen by whoever sees their order']);
select policies_are('public', 'payments', array['Payments are seen by whoever sees their order']);

select policy_cmd_is('public', t.name, p.polname, 'select', format('the one policy of %s is for reading', t.name))
from unnest(array['products', 'orders', 'order_items', 'payments']::name[]) as t (name)
join pg_policy as p on p.polrelid = format('public.%I', t.name)::regclass;

select table_privs_are('public', 'products', 'anon', array['SELECT'], 'guests read products');
select table_privs_are('public', 'products', 'authenticated', array['SELECT'], 'customers read products');
select table_privs_are('public', t.name, 'anon', '{}', format('guests have no right on %s', t.name))
from unnest(array['orders', 'order_items', 'payments']::name[]) as t (name);
select table_privs_are('public', t.name, 'authenticated', array['SELECT'], format('customers read %s, no more', t.name))
from unnest(array['orders', 'order_items', 'payments']::name[]) as t (name);
select table_privs_are(
    'public', t.name, 'service_role', array['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
    format('the secret key reads and writes %s, and cannot empty it at once', t.name)
)
from unnest(array['products', 'orders', 'order_items', 'payments']::name[]) as t (name);

select schema_privs_are('private', 'anon', '{}', 'guests do not get into schema private');
select function_privs_are(
    'private', 'cancel_order', array['uuid'], 'authenticated', array['EXECUTE'], 'customers may cancel orders'
);


-- Placing an order.

prepare place_order as
    select pg_temp.acting_as($1, $q$ select private.place_order(
        '10000000-0000-4000-8000-0000000000aa', '[{"sku": "PGTAP-BUOY", "quantity": 2}]', 'EUR',
        '10000000-0000-4000-8000-0000000000ab', 'ch_pgtap', 8400
    ) $q$);

select throws_ok($$ execute place_order('anon') $$, '42501', null, 'a guest may not place an order');
select throws_ok($$ execute place_order('service_role') $$, '42501', null, 'the secret key is nobody, and places none');
select throws_ok($$ execute place_order('nobody in particular') $$, 'PT401', null, 'nor does a token without a user');
select is_empty('select * from pg_temp.the_books()', 'and nothing has been written');

select lives_ok($$ execute place_order('ada') $$, 'Ada places an order');
select results_eq(
    'select * from pg_temp.the_books()',
    $$ values ('paid', false, 'succeeded', null::text, 2, 8) $$,
    'it is hers, it is paid, and two buoys are gone'
);


-- Reading it.

create function pg_temp.seen(p_who text)
returns jsonb
language sql
as $$
    select pg_temp.acting_as(p_who, $q$ select array[
        (select count(*) from public.orders where id = '10000000-0000-4000-8000-0000000000aa'),
        (select count(*) from public.order_items where order_id = '10000000-0000-4000-8000-0000000000aa'),
        (select count(*) from public.payments where order_id = '10000000-0000-4000-8000-0000000000aa')
    ] $q$)
$$;

select is(pg_temp.seen('ada'), '[1, 1, 1]', 'Ada sees her order, its item and its payment');
select is(pg_temp.seen('grace'), '[0, 0, 0]', 'Grace sees nothing of it');
select is(pg_temp.seen('an admin'), '[1, 1, 1]', 'an admin sees it');
select is(pg_temp.seen('a pretended admin'), '[0, 0, 0]', 'whoever calls themselves an admin in user_metadata does not');
select throws_ok($$ select pg_temp.seen('anon') $$, '42501', null, 'a guest may not even ask');


-- Changing it: by functions alone, and each acts for its caller alone.

select throws_ok(
    format('select pg_temp.acting_as(%L, %L)', who, call), 'PT404', null,
    format('to %s the order of Ada is as absent as one that never was: %s', who, call)
)
from unnest(array['grace', 'an admin']) as who
cross join unnest(array[
    'select private.cancel_order(''10000000-0000-4000-8000-0000000000aa'')',
    'select private.delete_order(''10000000-0000-4000-8000-0000000000aa'')'
]) as call;
select results_eq(
    'select * from pg_temp.the_books()',
    $$ values ('paid', false, 'succeeded', null::text, 2, 8) $$,
    'and none of these calls has changed anything'
);

select lives_ok(
    $$ select pg_temp.acting_as('ada', $q$ select private.cancel_order('10000000-0000-4000-8000-0000000000aa') $q$)
       from generate_series(1, 2) $$,
    'Ada cancels it, twice'
);
select results_eq(
    'select * from pg_temp.the_books()',
    $$ values ('cancelled', false, 'refund_due', null::text, 2, 10) $$,
    'the refund is due, and the buoys are back once'
);

select is(
    pg_temp.acting_as(
        'grace', $$ select private.record_refund('10000000-0000-4000-8000-0000000000ab', 're_forged')::text $$
    ),
    '""', 'Grace notes a refund of it, and is not told that there is no such payment of hers'
);
select results_eq(
    'select * from pg_temp.the_books()',
    $$ values ('cancelled', false, 'refund_due', null::text, 2, 10) $$,
    'and nothing has changed'
);

select lives_ok(
    $$ select pg_temp.acting_as('ada', $q$ select private.delete_order('10000000-0000-4000-8000-0000000000aa') $q$) $$,
    'Ada removes it from her sight'
);
select is(pg_temp.seen('ada'), '[0, 0, 0]', 'so she does not see it any more');
select is(pg_temp.seen('an admin'), '[1, 1, 1]', 'the books keep it, and an admin sees it');

select * from finish();

rollback;
