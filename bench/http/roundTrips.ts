/** Round trips to PostgreSQL of one `POST orders`, counted on the wire: the same on every machine. */
import { SignJWT } from 'jose'
import { platformEnvironment } from '../../local/functions/environment.ts'
import { startFunctionsHost } from '../../local/functions/host.ts'
import { localKeys } from '../../local/keys.ts'
import { startPayments } from '../../local/payments/server.ts'
import { startWireProxy } from '../../tests/support/wireProxy.ts'
import { startDatabase } from '../support/database.ts'
import { median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'

const name = 'round trips'
const measure = `${name} of POST orders`
/** The price of the items, and the order: between them lies the charge, so the second has to wait for the first. */
const dependentStatements = 2
const orders = 5
/** A customer of `supabase/seed.sql`. */
const customerId = '00000000-0000-4000-8000-00000000000a'

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

/** The function on the host, with a payment provider; what it returns places an order. */
async function startShop({ project, resources }: Bench, databaseUrl: string): Promise<() => Promise<void>> {
  const payments = resources.adopt(await startPayments({ port: 0 }), (payments) => payments.close())
  const environment = await platformEnvironment({
    url: 'http://127.0.0.1',
    databaseUrl,
    publishableKey: localKeys.publishable,
    secretKey: localKeys.secret,
    jwtSecret: localKeys.jwtSecret,
  })
  const host = resources.adopt(
    await startFunctionsHost({
      project,
      jwtSecret: localKeys.jwtSecret,
      env: { ...environment, PAYMENTS_URL: payments.url },
    }),
    (host) => host.close(),
  )
  const token = await new SignJWT({ sub: customerId, role: 'authenticated' })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('1h')
    .sign(new TextEncoder().encode(localKeys.jwtSecret))

  return async () => {
    const response = await host.fetch(
      new Request('http://127.0.0.1/orders', {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ items: [{ sku: 'ROPE-10', quantity: 1 }], payment: { token: 'tok_visa' } }),
      }),
    )
    const text = await response.text()
    if (response.status !== 201) throw new Error(`Cannot place an order: ${response.status} ${text}`)
  }
}
