/** Round trips to PostgreSQL of one `POST orders`, counted on the wire: the same on every machine. */
import { startPayments } from '../../local/payments/server.ts'
import { startWireProxy } from '../../tests/support/wireProxy.ts'
import { startDatabase } from '../support/database.ts'
import { startFunctions } from '../support/functions.ts'
import { median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'

const name = 'round trips'
const measure = `${name} of POST orders`
/** The price of the items, and the order: between them lies the charge, so the second has to wait for the first. */
const dependentStatements = 2
const orders = 5

export const roundTrips: Measure = {
  name,
  async run(bench) {
    const database = await startDatabase(bench)
    const proxy = bench.resources.adopt(startWireProxy({ target: database.url() }), (proxy) => proxy.close())
    const placeOrder = await startShop(bench, proxy.url)
    // The first order opens the connection, which later ones find open.
    await placeOrder()
    const counts: number[] = []
    for (let order = 0; order < orders; order++) {
      counts.push((await proxy.measure(placeOrder)).counts.roundTrips)
    }
    const count = median(counts)
    bench.report.figure({ measure, subject: 'holdfast', value: count, unit: 'round trips' })
    bench.report.verdict({
      measure,
      against: 'dependent statements + 2',
      ratio: count,
      aim: `<=${dependentStatements + 2}`,
    })
  },
}

/** What it returns places an order, paid with a provider of its own. */
async function startShop(bench: Bench, databaseUrl: string): Promise<() => Promise<void>> {
  const payments = bench.resources.adopt(await startPayments({ port: 0 }), (payments) => payments.close())
  const post = await startFunctions(bench, {
    project: bench.project,
    databaseUrl,
    env: { PAYMENTS_URL: payments.url },
  })
  return () =>
    post('/orders', {
      body: { items: [{ sku: 'ROPE-10', quantity: 1 }], payment: { token: 'tok_visa' } },
      headers: { 'idempotency-key': crypto.randomUUID() },
    })
}
