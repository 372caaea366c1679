/*---
{ "package": "sequelize", "version": "6.37.8", "tree": "orm", "needs": ["postgres"],
  "also": { "pg": "8.23.1", "pg-hstore": "2.3.4" },
  "exercises": "a model, bulk inserts, operators, a unique constraint, on PostgreSQL",
  "env": { "POSTGRES": "{postgres}" },
  "expect": { "json": { "found": [{ "name": "Alan", "born": 1912 }], "error": "SequelizeUniqueConstraintError" } } }
---*/
const { DataTypes, Op, Sequelize } = require("sequelize");

exports.handler = async () => {
  const sequelize = new Sequelize(process.env.POSTGRES, { logging: false });
  const Person = sequelize.define("sequelize_person", {
    name: { type: DataTypes.STRING, unique: true },
    born: DataTypes.INTEGER,
  });
  await sequelize.sync({ force: true });
  await Person.bulkCreate([{ name: "Ada", born: 1815 }, { name: "Alan", born: 1912 }]);
  const where = { born: { [Op.gt]: 1900 } };
  const found = await Person.findAll({ where, attributes: ["name", "born"], raw: true });
  const error = await Person.create({ name: "Ada" }).catch(({ name }) => name);
  await sequelize.close();
  return { found, error };
};
