-- What: the sample shop: products, orders, their items and payments, and the three ways an order changes.
-- Why: an order, its items, its stock and its payment are one fact, so one transaction writes them.
-- Who: anybody reads products; customers read their own orders; only private.* writes, called by edge functions.

create table public.products (
    id uuid primary key default gen_random_uuid(),
    sku text not null,
    name text not null,
    price_minor bigint not null,
    currency text not null,
    -- squawk-ignore prefer-bigint-over-int
    stock integer not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    constraint sku_is_unique unique (sku),
    constraint sku_is_short check (char_length(sku) between 1 and 64),
    constraint name_is_short check (char_length(name) between 1 and 200),
    constraint price_is_not_negative check (price_minor >= 0),
    constraint currency_is_iso check (currency ~ '^[A-Z]{3}$'),
    constraint stock_is_not_negative check (stock >= 0)
);

comment on table public.products is 'What the shop sells. Anybody may read what is not deleted.';
comment on column public.products.sku is 'The name by which customers order it.';
comment on column public.products.price_minor is 'Price of one piece in the currency''s minor unit (cents).';
comment on column public.products.currency is 'ISO 4217 code, three capitals.';
comment on column public.products.stock is 'Pieces that can still be ordered; never below zero.';
comment on column public.products.deleted_at is 'Set when the product is no longer sold; orders keep pointing at it.';


create table public.orders (
    id uuid primary key default gen_random_uuid(),
    user_id uuid references auth.users (id) on delete set null,
    status text not null,
    total_minor bigint not null,
    currency text not null,
    cancelled_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    constraint status_is_known check (status in ('paid', 'cancelled')),
    constraint cancelled_orders_say_when check ((status = 'cancelled') = (cancelled_at is not null)),
    constraint total_is_not_negative check (total_minor >= 0),
    constraint currency_is_iso check (currency ~ '^[A-Z]{3}$')
);

-- Serves both ways a customer pages through their orders, newest first.
create index orders_by_customer on public.orders (user_id, created_at desc, id desc);

comment on table public.orders is 'One row an order. Written by private.place_order, cancel_order and delete_order only.';
comment on column public.orders.user_id is 'The customer; null once the account is deleted, since the books keep the order.';
comment on column public.orders.status is 'paid, or cancelled (stock returned, payment refunded or due to be).';
comment on column public.orders.total_minor is 'Sum of the items in the currency''s minor unit.';
comment on column public.orders.cancelled_at is 'When it was cancelled; set exactly when status is cancelled.';
comment on column public.orders.deleted_at is 'Set when the customer removed it from sight; the row stays.';


create table public.order_items (
    order_id uuid not null references public.orders (id) on delete cascade,
    product_id uuid not null references public.products (id),
    sku text not null,
    name text not null,
    -- squawk-ignore prefer-bigint-over-int
    quantity integer not null,
    unit_price_minor bigint not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (order_id, product_id),
    constraint quantity_is_positive check (quantity > 0),
    constraint unit_price_is_not_negative check (unit_price_minor >= 0)
);

create index order_items_by_product on public.order_items (product_id);

comment on table public.order_items is
    'What was ordered, with name and price as they were then. Seen and soft-deleted with its order.';
comment on column public.order_items.sku is 'The product''s sku at the time of the order.';
comment on column public.order_items.name is 'The product''s name at the time of the order.';
comment on column public.order_items.unit_price_minor is 'Price of one piece at the time of the order, in minor units.';


create table public.payments (
    id uuid primary key,
    order_id uuid not null references public.orders (id) on delete cascade,
    provider_charge_id text not null,
    provider_refund_id text,
    status text not null,
    amount_minor bigint not null,
    currency text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint an_order_is_paid_once unique (order_id),
    constraint a_charge_pays_one_order unique (provider_charge_id),
    constraint status_is_known check (status in ('succeeded', 'refund_due', 'refunded')),
    constraint refunds_name_the_providers_refund check ((status = 'refunded') = (provider_refund_id is not null)),
    constraint amount_is_not_negative check (amount_minor >= 0),
    constraint currency_is_iso check (currency ~ '^[A-Z]{3}$')
);

-- What is owed to customers; almost always empty.
create index payments_owed on public.payments (updated_at) where status = 'refund_due';

comment on table public.payments is
    'The charge behind each order. A row in refund_due is money we owe: the order is cancelled, the provider has not confirmed yet.';
comment on column public.payments.id is 'Chosen by the function before the charge; the provider''s idempotency keys derive from it.';
comment on column public.payments.provider_charge_id is 'The provider''s name for the charge.';
comment on column public.payments.provider_refund_id is 'The provider''s name for the refund; set exactly when status is refunded.';
comment on column public.payments.status is 'succeeded, refund_due or refunded.';
comment on column public.payments.amount_minor is 'Amount charged, in the currency''s minor unit.';


create trigger stamp_times before insert or update on public.products
    for each row execute function holdfast.stamp_times();

create trigger stamp_times before insert or update on public.orders
    for each row execute function holdfast.stamp_times();

create trigger stamp_times before insert or update on public.order_items
    for each row execute function holdfast.stamp_times();

create trigger stamp_times before insert or update on public.payments
    for each row execute function holdfast.stamp_times();


-- Access. Nobody writes through the API; service_role is the functions' and admins' own tool.

alter table public.products enable row level security;
alter table public.orders enable row level security;
alter table public.order_items enable row level security;
alter table public.payments enable row level security;

grant select on public.products to anon, authenticated;
grant select on public.orders, public.order_items, public.payments to authenticated;
grant select, insert, update, delete
    on public.products, public.orders, public.order_items, public.payments
    to service_role;

create policy "Anybody may see what is sold"
    on public.products
    for select
    to anon, authenticated
    using (deleted_at is null or (select holdfast.is_admin()));

-- To admins all ids are open, to everybody else none. Said as a range and not as "or is_admin()", of which the planner
-- knows nothing: it would read every order to find the few of a customer. Now either half has its index.
create policy "Customers see their own orders, admins see all"
    on public.orders
    for select
    to authenticated
    using ((user_id = (select auth.uid()) and deleted_at is null) or id between
        (select case when holdfast.is_admin() then '00000000-0000-0000-0000-000000000000'::uuid end)
        and 'ffffffff-ffff-ffff-ffff-ffffffffffff');

create policy "Items are seen by whoever sees their order"
    on public.order_items
    for select
    to authenticated
    using (exists (select from public.orders where orders.id = order_items.order_id));

create policy "Payments are seen by whoever sees their order"
    on public.payments
    for select
    to authenticated
    using (exists (select from public.orders where orders.id = payments.order_id));


-- The three ways an order changes. Each runs with the owner's rights, because customers may not write these
-- tables, and each acts for auth.uid() alone. Products are locked in the order of their sku, so two orders
-- for the same products wait for each other instead of deadlocking.

create or replace function private.order_as_json(p_order_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object(
        'id', o.id,
        'status', o.status,
        'totalMinor', o.total_minor,
        'currency', o.currency,
        'items', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'sku', i.sku,
                'name', i.name,
                'quantity', i.quantity,
                'unitPriceMinor', i.unit_price_minor
            ) order by i.sku), '[]')
            from public.order_items as i
            where i.order_id = o.id
        ),
        'createdAt', o.created_at,
        'cancelledAt', o.cancelled_at
    )
    from public.orders as o
    where o.id = p_order_id
$$;

comment on function private.order_as_json(uuid) is
    'An order as the API shows it. Runs with the caller''s rights: an order the caller may not see is null.';


create or replace function private.place_order(
    p_order_id uuid,
    p_items jsonb,
    p_currency text,
    p_payment_id uuid,
    p_charge_id text,
    p_amount_minor bigint
)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user_id uuid := auth.uid();
    v_problem jsonb;
    v_total bigint;
begin
    if v_user_id is null then
        raise exception 'Only a signed-in customer can place an order' using errcode = 'PT401';
    end if;

    perform from public.products as p
    where p.sku in (select w.sku from jsonb_to_recordset(p_items) as w (sku text, quantity integer))
    order by p.sku
    for update;

    select jsonb_agg(w.sku order by w.sku) into v_problem
    from jsonb_to_recordset(p_items) as w (sku text, quantity integer)
    where not exists (select from public.products as p where p.sku = w.sku and p.deleted_at is null);

    if v_problem is not null then
        raise exception 'Cannot place the order: it names products that are not sold here'
            using errcode = 'PT409', detail = jsonb_build_object('unknownSkus', v_problem)::text;
    end if;

    select jsonb_agg(
        jsonb_build_object('sku', w.sku, 'requested', w.quantity, 'available', p.stock) order by w.sku
    ) into v_problem
    from jsonb_to_recordset(p_items) as w (sku text, quantity integer)
    join public.products as p on p.sku = w.sku
    where w.quantity > p.stock;

    if v_problem is not null then
        raise exception 'Cannot place the order: there is too little stock'
            using errcode = 'PT409', detail = jsonb_build_object('insufficientStock', v_problem)::text;
    end if;

    select sum(w.quantity * p.price_minor) into v_total
    from jsonb_to_recordset(p_items) as w (sku text, quantity integer)
    join public.products as p on p.sku = w.sku and p.currency = p_currency;

    if v_total is distinct from p_amount_minor then
        raise exception 'Cannot place the order: a price changed while it was being paid'
            using errcode = 'PT409',
                detail = jsonb_build_object('chargedMinor', p_amount_minor, 'totalMinor', v_total)::text;
    end if;

    insert into public.orders (id, user_id, status, total_minor, currency)
    values (p_order_id, v_user_id, 'paid', v_total, p_currency);

    with taken as (
        update public.products as p
        set stock = p.stock - w.quantity
        from jsonb_to_recordset(p_items) as w (sku text, quantity integer)
        where p.sku = w.sku
        returning p.id, p.sku, p.name, p.price_minor, w.quantity
    )
    insert into public.order_items (order_id, product_id, sku, name, quantity, unit_price_minor)
    select p_order_id, taken.id, taken.sku, taken.name, taken.quantity, taken.price_minor
    from taken;

    insert into public.payments (id, order_id, provider_charge_id, status, amount_minor, currency)
    values (p_payment_id, p_order_id, p_charge_id, 'succeeded', v_total, p_currency);

    return private.order_as_json(p_order_id);
end;
$$;

comment on function private.place_order(uuid, jsonb, text, uuid, text, bigint) is
    'Takes the stock and writes order, items and payment for the caller, or raises PT409 with what is wrong and '
    'changes nothing. p_order_id is chosen by the caller. p_items: [{sku, quantity}], each sku once. The charge has been made: its amount must be the total.';


create or replace function private.cancel_order(p_order_id uuid)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_status text;
begin
    select o.status into v_status
    from public.orders as o
    where o.id = p_order_id and o.user_id = auth.uid() and o.deleted_at is null
    for update;

    if not found then
        raise exception 'There is no such order' using errcode = 'PT404';
    end if;

    if v_status <> 'cancelled' then
        perform from public.products as p
        join public.order_items as i on i.product_id = p.id
        where i.order_id = p_order_id
        order by p.sku
        for update of p;

        update public.products as p
        set stock = p.stock + i.quantity
        from public.order_items as i
        where i.order_id = p_order_id and p.id = i.product_id;

        update public.orders as o
        set status = 'cancelled', cancelled_at = now()
        where o.id = p_order_id;

        update public.payments as p
        set status = 'refund_due'
        where p.order_id = p_order_id;
    end if;

    return (
        select jsonb_build_object(
            'order', private.order_as_json(p_order_id),
            'payment', jsonb_build_object('id', p.id, 'chargeId', p.provider_charge_id, 'status', p.status)
        )
        from public.payments as p
        where p.order_id = p_order_id
    );
end;
$$;

comment on function private.cancel_order(uuid) is
    'Cancels the caller''s order: stock returned once and the refund noted as due, however often it is called. '
    'Raises PT404 for an order that is not the caller''s.';


create or replace function private.record_refund(p_payment_id uuid, p_refund_id text)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.payments as p
    set status = 'refunded', provider_refund_id = p_refund_id
    from public.orders as o
    where p.id = p_payment_id
        and p.status = 'refund_due'
        and o.id = p.order_id
        and o.user_id = auth.uid();
end;
$$;

comment on function private.record_refund(uuid, text) is
    'Notes that the provider confirmed the refund of a cancelled order of the caller. A second call changes nothing.';


create or replace function private.delete_order(p_order_id uuid)
returns timestamptz
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_deleted_at timestamptz;
begin
    update public.orders as o
    set deleted_at = now()
    where o.id = p_order_id and o.user_id = auth.uid() and o.deleted_at is null
    returning o.deleted_at into v_deleted_at;

    if not found then
        raise exception 'There is no such order' using errcode = 'PT404';
    end if;

    return v_deleted_at;
end;
$$;

comment on function private.delete_order(uuid) is
    'Removes the caller''s order from their sight; the row stays. Raises PT404 for an order that is not the caller''s.';


revoke execute on all functions in schema private from public, anon;

grant execute
    on function
        private.order_as_json(uuid),
        private.place_order(uuid, jsonb, text, uuid, text, bigint),
        private.cancel_order(uuid),
        private.record_refund(uuid, text),
        private.delete_order(uuid)
    to authenticated;
